"""Bytes as a tokenizer, written down as Hugging Face's libraries read one."""

from __future__ import annotations

import json

# The bytes that stand for themselves in a `tokenizer.json`: those that are printed, in Latin-1. The others are the
# characters from 256 on, in order. (`tokenizers`, pre-tokenizer ByteLevel.)
PRINTED = (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))


def tokenizer_json() -> str:
    """Return the `tokenizer.json` of the tokenizer whose token n is the byte n: UTF-8, nothing merged or added."""
    others = iter(range(256, 512))
    characters = [chr(byte) if byte in PRINTED else chr(next(others)) for byte in range(256)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model = {"type": "BPE", "vocab": {character: byte for byte, character in enumerate(characters)}, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level, "model": model}
    return json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n"
