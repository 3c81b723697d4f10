"""The tokenizer of bytes, as the library that reads it understands it."""

from __future__ import annotations

import pytest

from halos.data.byte_level import PRINTED, tokenizer_json


def test_every_byte_is_a_token_of_its_number() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json())
    text = "".join(map(chr, range(0x250))) + " € 漢字 🙂\r\n\x00  end "  # UTF-8 of one to four bytes
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode()), skip_special_tokens=False) == text
    assert tokenizer.get_vocab_size() == 256


def test_the_bytes_that_stand_for_themselves_are_those_printed_in_latin_1() -> None:
    assert list(PRINTED) == [byte for byte in range(256) if chr(byte).isprintable() and not chr(byte).isspace()]
