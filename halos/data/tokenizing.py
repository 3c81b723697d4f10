"""Other people's tokenizers: a local `tokenizer.json` of Hugging Face's, or one of tiktoken's by name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Protocol, TypeAlias, Union, get_args

from halos.data.files import EXTRA
from halos.errors import ConfigError, from_here, in_a_line

Tiktoken: TypeAlias = Literal[
    "gpt2", "r50k_base", "p50k_base", "p50k_edit", "cl100k_base", "o200k_base", "o200k_harmony"
]
# What the end of a text is called, most widely used first.
ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<|eos|>", "[EOS]")


class Tokenizer(Protocol):
    """Turns texts into numbers, the same whenever and wherever it is asked."""

    vocab_size: int  # tokens are below it
    identity: str  # hexadecimal: two tokenizers of one identity give the same tokens
    end: Optional[int]  # the token that ends a text; None: it has none
    json: Optional[str]  # as a `tokenizer.json`; None: it has no such form

    def encode(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Return each text's tokens, nothing added and nothing cut off. Raises ConfigError if it cannot."""
        ...


def load(given: Union[Tiktoken, Path]) -> Tokenizer:
    """Return the tokenizer of a tiktoken name, a file, or a folder with a `tokenizer.json` in it."""
    return ByTiktoken(given) if isinstance(given, str) else HuggingFace(given)


class HuggingFace:
    """A `tokenizer.json`, as the library `tokenizers` reads it. Raises ConfigError if there is none."""

    def __init__(self, given: Path) -> None:
        path = Path(from_here(given))
        file = path / "tokenizer.json" if os.path.isdir(path) else path  # a path may be too long to be asked
        if not os.path.exists(file):
            known = ", ".join(get_args(Tiktoken))
            problem = f"{str(file)!r} does not exist; give a local tokenizer.json, its folder, or one of tiktoken's"
            raise ConfigError("tokenizer", f"{problem} ({known})")
        if not os.path.isfile(file):
            raise ConfigError("tokenizer", f"{str(file)!r} is no file")
        try:
            import tokenizers
        except ImportError:
            raise ConfigError("tokenizer", f"{str(file)!r}: tokenizers is not installed; {EXTRA}") from None
        try:
            content = file.read_bytes()
            self.json: Optional[str] = content.decode()
            self._tokenizer = tokenizers.Tokenizer.from_str(self.json)
        except Exception as error:  # the library's own are plain Exceptions
            problem = f"cannot be read as a tokenizer.json: {in_a_line(error)}"
            raise ConfigError("tokenizer", f"{str(file)!r} {problem}") from None
        self._file = file
        self._tokenizer.no_truncation()  # a file may come with both switched on
        self._tokenizer.no_padding()
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1
        self.end = self._end()
        parts = f"tokenizers {tokenizers.__version__}\n{self.end}\n".encode()
        self.identity = hashlib.sha256(parts + content).hexdigest()

    def encode(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        fast = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)  # without positions
        try:
            return [encoded.ids for encoded in fast(list(texts), add_special_tokens=False)]
        except Exception as error:
            problem = f"does not take these texts: {in_a_line(error)}"
            raise ConfigError("tokenizer", f"{str(self._file)!r} {problem}") from None

    def _end(self) -> Optional[int]:
        """What the tokenizer_config.json beside it calls `eos_token`, or what has one of the usual names."""
        names: list[Any] = list(ENDS)
        beside = self._file.with_name("tokenizer_config.json")
        if beside.is_file():
            try:
                said = json.loads(beside.read_bytes())["eos_token"]
                names.insert(0, said["content"] if isinstance(said, dict) else said)
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                pass  # many do not say it
        found = (self._tokenizer.token_to_id(name) for name in names if isinstance(name, str))
        return next((token for token in found if token is not None), None)


class ByTiktoken:
    """One of tiktoken's encodings, which it keeps in a folder of its own (TIKTOKEN_CACHE_DIR) once it was fetched."""

    def __init__(self, name: str) -> None:
        try:
            import tiktoken
        except ImportError:
            raise ConfigError("tokenizer", f"{name!r}: tiktoken is not installed; {EXTRA}") from None
        try:
            self._encoding = tiktoken.get_encoding(name)
        except Exception as error:  # no network, a file that is not what it should be, an older library
            raise ConfigError("tokenizer", f"{name!r} cannot be loaded by tiktoken: {in_a_line(error)[:200]}") from None
        self.vocab_size = self._encoding.n_vocab
        self.json: Optional[str] = None
        special = ENDS[0] in self._encoding.special_tokens_set
        self.end = self._encoding.encode_single_token(ENDS[0]) if special else None
        parts = f"tiktoken {tiktoken.__version__} {name} {self.vocab_size} {self.end}"
        self.identity = hashlib.sha256(parts.encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        return [self._encoding.encode_ordinary(text) for text in texts]
