"""Other people's tokenizers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from halos.data.tokenizing import load
from halos.errors import ConfigError


def words(*known: str, special: tuple[str, ...] = ()) -> Tokenizer:
    """A tokenizer of whole words, numbered in order after `?`, which stands for all others."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *known])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(name) for name in special])
    return tokenizer


def saved(folder: Path, tokenizer: Tokenizer) -> Path:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_a_tokenizer_json_gives_its_own_tokens_and_nothing_else(tmp_path: Path) -> None:
    tokenizer = words("a", "b", "c", special=("<s>", "</s>"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 4), ("</s>", 5)])
    loaded = load(saved(tmp_path, tokenizer))
    assert [list(tokens) for tokens in loaded.encode(["c b a x b", "", "a"])] == [[3, 2, 1, 0, 2], [], [1]]
    assert (loaded.vocab_size, loaded.end) == (6, 5)


def test_a_folder_is_that_of_its_tokenizer_json(tmp_path: Path) -> None:
    path = saved(tmp_path, words("a"))
    assert load(tmp_path).identity == load(path).identity
    assert load(tmp_path).json == path.read_text()
    assert load(path).end is None
    other = tmp_path / "other"
    other.mkdir()
    assert load(saved(other, words("b"))).identity != load(path).identity


@pytest.mark.parametrize("said", ["<end>", {"content": "<end>", "lstrip": False}])
def test_the_end_of_a_text_is_what_the_config_beside_it_says(tmp_path: Path, said: Any) -> None:
    path = saved(tmp_path, words("a", special=("</s>", "<end>")))
    assert load(path).end == 2
    before = load(path).identity
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": said}))
    assert load(path).end == 3
    assert load(path).identity != before
    for useless in ("no json", "[]", '{"eos_token": null}', '{"eos_token": "<not-there>"}'):
        (tmp_path / "tokenizer_config.json").write_text(useless)
        assert load(path).end == 2


def test_numbers_with_gaps_are_below_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "a": 70000}, unk_token="?"))
    loaded = load(saved(tmp_path, tokenizer))
    assert loaded.vocab_size == 70001
    assert list(loaded.encode(["a"])[0]) == [70000]


def tiny(name: str) -> tiktoken.Encoding:
    """Bytes, and `ab` as one token."""
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256}
    return tiktoken.Encoding(
        name, pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 257, "<|more|>": 260}
    )


def test_one_of_tiktokens_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken, "get_encoding", tiny)
    loaded = load("gpt2")
    assert (loaded.vocab_size, loaded.end) == (261, 257)
    assert [list(tokens) for tokens in loaded.encode(["abc b", "<|more|>"])] == [
        [256, ord("c"), ord(" "), ord("b")],
        list(b"<|more|>"),  # what a text says of itself ends none
    ]
    assert load("cl100k_base").identity != loaded.identity == load("gpt2").identity


def test_what_tiktoken_cannot_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> tiktoken.Encoding:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    with pytest.raises(ConfigError, match=r"^tokenizer: 'gpt2' cannot be loaded by tiktoken: no route to host$"):
        load("gpt2")


def test_what_is_no_tokenizer_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("not what it seems")
    (tmp_path / "json").write_text('{"model": 3}')
    for name, problem in {
        "gtp2": f"'{tmp_path}/gtp2' does not exist; give a local tokenizer.json, its folder, or one of tiktoken's (gpt",
        "empty": f"'{tmp_path}/empty/tokenizer.json' does not exist; ",
        "text": f"'{tmp_path}/text' cannot be read as a tokenizer.json: ",
        "json": f"'{tmp_path}/json' cannot be read as a tokenizer.json: ",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / name)
        assert str(caught.value).startswith(f"tokenizer: {problem}")
        assert "\n" not in str(caught.value)


def test_a_text_that_it_does_not_take_is_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path, Tokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(ConfigError, match=r"^tokenizer: .*tokenizer.json' does not take these texts: .*UNK"):
        load(path).encode(["b"])


@pytest.mark.parametrize("library", ["tokenizers", "tiktoken"])
def test_a_library_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    path = saved(tmp_path, words("a"))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ConfigError, match=rf"^tokenizer: .*: {library} is not installed; run: pip install halos-simulat"
    ):
        load("gpt2" if library == "tiktoken" else path)
