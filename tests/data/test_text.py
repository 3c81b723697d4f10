"""Text files as a corpus of bytes."""

import gzip
import json
import os
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from halos.config.builder import Builder
from halos.data import ArrayCorpus
from halos.data.files import File, find
from halos.data.text import Document, Text
from halos.data.tokenizing import HuggingFace, load
from halos.errors import ConfigError
from halos.plugins.registry import Plugins
from halos.testing import TINY, record


def small(path: Any, **options: Any) -> Text:
    """Windows of three predicted bytes, nothing held out, in the order of names."""
    defaults: dict[str, Any] = {"sequence_length": 3, "validation_samples": 0, "shuffle": False}
    return Text(path=path, **(defaults | options))


def files(folder: Path, contents: dict[str, str]) -> str:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return str(folder)


def texts(source: Text, seed: int = 1) -> list[bytes]:
    opened = source.open(seed)
    return [bytes(sample) for sample in opened.read(slice(0, len(opened)))]


def sources(opened: ArrayCorpus) -> list[int]:
    return [int(source) for source in np.asarray(opened.sources)]


def joined(source: Text, seed: int = 1) -> bytes:
    """The windows put together again: each one's first byte is the last of the one before."""
    windows = texts(source, seed)
    return windows[0] + b"".join(window[1:] for window in windows[1:])


def test_documents_are_joined_with_a_zero_byte_and_cut_so_that_each_byte_is_predicted_once(tmp_path: Path) -> None:
    path = files(tmp_path, {"b.txt": "defg", "a.txt": "abc"})
    assert texts(small(path)) == [b"abc\0", b"\0def"]  # abc0defg0: the last two bytes fill no window


def test_the_vocabulary_is_bytes_and_known_without_opening(tmp_path: Path) -> None:
    assert small(tmp_path / "missing").vocabulary() == 256
    assert small(files(tmp_path, {"a": "abcdefg"})).open(1).vocab_size == 256


def test_folders_are_read_recursively_without_hidden_and_compiled_entries(tmp_path: Path) -> None:
    names = {"z/deep/a.md": "one", "b.md": "two", ".git/c.md": "no", "z/.d.md": "no", "__pycache__/e.md": "no", "f": ""}
    os.symlink(tmp_path / "nowhere", tmp_path / "broken.md")
    os.mkfifo(tmp_path / "pipe.md")
    assert joined(small(files(tmp_path, names))) == b"two\0one"


def test_a_pattern_selects_file_names(tmp_path: Path) -> None:
    path = files(tmp_path, {"a.md": "one", "b/c.md": "two", "d.txt": "no"})
    assert joined(small(path, pattern="*.md")) == b"one\0two"


def test_a_single_file_is_a_corpus(tmp_path: Path) -> None:
    files(tmp_path, {"a.txt": "abcdef"})
    opened = small(tmp_path / "a.txt", pattern="*.md").open(1)
    assert bytes(opened.samples[0]) == b"abcd"
    assert sources(opened) == [0, 0]


def test_documents_are_shuffled_by_the_seed_but_the_hash_stays(tmp_path: Path) -> None:
    path = files(tmp_path, {f"{letter}.txt": letter * 3 for letter in "abcdefghij"})
    plain, shuffled = small(path), small(path, shuffle=True)
    assert joined(shuffled, 1) != joined(shuffled, 2) != joined(plain)
    assert joined(shuffled, 1) == joined(shuffled, 1)
    hashes = {plain.open(1).hash, shuffled.open(1).hash, shuffled.open(2).hash}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def test_the_hash_follows_names_and_contents_but_not_the_place(tmp_path: Path) -> None:
    def digest(where: str, contents: dict[str, str]) -> str:
        return small(files(tmp_path / where, contents)).open(1).hash

    one = digest("one", {"a": "abc", "b": "def"})
    assert digest("two", {"a": "abc", "b": "def"}) == one
    others = [{"a": "abc", "c": "def"}, {"a": "abd", "b": "def"}, {"a": "abcd", "b": "ef"}]
    assert one not in {digest(f"other-{i}", contents) for i, contents in enumerate(others)}


def test_a_sample_belongs_to_the_entry_in_which_it_begins(tmp_path: Path) -> None:
    path = files(tmp_path, {"a/x.py": "12345", "a/y.py": "12345", "b.py": "12345"})
    # a/x at byte 0, a/y at 6, b at 12, end at 18; windows begin at 0, 3, 6, 9, 12 (the one at 15 is not full).
    assert sources(small(path).open(1)) == [0, 0, 0, 0, 1]


def test_of_several_paths_each_is_a_source(tmp_path: Path) -> None:
    files(tmp_path, {"one/a.py": "12345", "one/b.py": "12345", "two/a.py": "12345"})
    opened = small([tmp_path / "two", tmp_path / "one"]).open(1)
    assert sources(opened) == [0, 0, 1, 1, 1]


def test_sources_follow_the_shuffled_documents(tmp_path: Path) -> None:
    path = files(tmp_path, {f"{number}.txt": str(number) * 5 for number in range(10)})  # six bytes each: two windows
    opened = small(path, shuffle=True).open(1)
    assert [int(chr(sample[0])) for sample in opened.samples[::2]] == sources(opened)[::2]


def test_samples_are_views_of_one_array(tmp_path: Path) -> None:
    opened = small(files(tmp_path, {"a": "abcdefgh" * 100})).open(1)
    assert opened.samples.strides == (3, 1)
    assert opened.samples.dtype == np.uint8
    assert np.shares_memory(opened.read(slice(2, 5)), opened.samples)


def test_the_standard_library_is_a_corpus_without_its_tests() -> None:
    source = Text()
    names = [file.name for file in find([source.path], None)]
    opened = source.open(1)
    assert "os.py" in names
    assert "json/decoder.py" in names
    assert not any("test" in name.split("/")[:-1] or "site-packages" in name for name in names)
    assert opened.hash == Text().open(2).hash
    assert len(opened) * 256 > 5_000_000
    assert len(set(sources(opened))) > 100
    assert b"def join(" in joined(small(Path(sysconfig.get_path("stdlib"), "posixpath.py")))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing", "path: '{here}/missing' does not exist"),
        ("empty", "path: '{here}/empty' holds no readable text: no file matches, or all are empty"),
        ("empty/file", "path: '{here}/empty/file' holds no readable text: no file matches, or all are empty"),
        ("short", "path: '{here}/short' gives 6 bytes (1 files); 2 samples of sequence_length 3, one of them to train"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, path: str, problem: str) -> None:
    files(tmp_path, {"empty/file": "", "short/a": "12345"})
    with pytest.raises(ConfigError) as caught:
        small(tmp_path / path, validation_samples=1).open(1)
    assert str(caught.value).startswith(problem.format(here=tmp_path))
    assert "\n" not in str(caught.value)


def test_one_byte_more_is_enough(tmp_path: Path) -> None:
    assert len(small(files(tmp_path, {"a": "123456"}), validation_samples=1).open(1)) == 2


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (None, "path: null is not 'stdlib' or a path or a list, each 'stdlib' or a path"),
        (5, "path: 5 is not 'stdlib' or a path or a list, each 'stdlib' or a path"),
        ("", "path: '' is not 'stdlib' or a path or a list, each 'stdlib' or a path"),
        ([], "path: [] is not a file, a folder, 'stdlib', or a list of these"),
        ([""], "path[0]: '' is not 'stdlib' or a path"),
        (["a", 5], "path[1]: 5 is not 'stdlib' or a path"),
    ],
    ids=str,
)
def test_a_path_is_text_or_a_list_of_it(path: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Builder(Plugins()).build(Text, {"path": path}, "")
    assert str(caught.value) == problem


def test_a_folder_called_stdlib_is_not_the_stdlib_unless_it_is_given_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, {"stdlib/a": "abcdef"})
    monkeypatch.chdir(tmp_path)
    built = Builder(Plugins()).build(Text, {"path": "./stdlib"}, "")
    assert built.path == tmp_path / "stdlib"
    assert joined(small(built.path)) == b"abcdef\0"


def test_an_unreadable_or_changing_file_is_named(tmp_path: Path) -> None:
    target = np.zeros(4, np.uint8)
    document = Document(File("a", str(tmp_path / "a"), 4, 0, named=True), "a", 4, None)
    with pytest.raises(ConfigError, match=r"^path: '.*/a' cannot be read: No such file or directory$"):
        document.read_into(target)
    files(tmp_path, {"a": "123"})
    with pytest.raises(ConfigError, match=r"^path: '.*/a' had 4 bytes and has 3"):
        document.read_into(target)


# What was read before there were tokenizers is read as it was


def test_bytes_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """The numbers were recorded before this source could read anything but plain files."""
    path = files(tmp_path, {f"{name}/{i}.txt": f"{name}{i} " * (i + 1) for name in "ab" for i in range(5)})
    opened = small(path, shuffle=True).open(7)
    assert opened.hash == "c9611dadae60cdd4b987da914f14788ca064d48371c136f7cfacf9d1f9f7ab9c"
    order = ["b0", "a2", "b2", "a0", "a4", "a1", "b1", "b3", "a3", "b4"]
    documents = [f"{name} ".encode() * (int(name[1]) + 1) + b"\0" for name in order]
    assert joined(small(path, shuffle=True), 7) == b"".join(documents)[: 3 * len(opened) + 1]
    assert (opened.bytes_per_token, opened.tokenizer) == (1.0, "bytes")


# Records


def records(folder: Path, name: str, *texts: str, field: str = "text") -> Path:
    (folder / name).write_text("".join(json.dumps({"id": 0, field: text}) + "\n" for text in texts))
    return folder / name


def test_the_lines_of_json_are_documents_like_files(tmp_path: Path) -> None:
    path = records(tmp_path, "a.jsonl", "abc", "", "defg")
    assert texts(small(path)) == [b"abc\0", b"\0def"]
    assert texts(small(records(tmp_path, "b.jsonl", "abc", "defg", field="body"), field="body")) == [b"abc\0", b"\0def"]
    files(tmp_path, {"c/one.txt": "abc", "c/two.txt": "defg"})
    for seed in range(5):  # shuffled likewise
        assert texts(small(path, shuffle=True), seed) == texts(small(tmp_path / "c", shuffle=True), seed)


def test_files_of_all_kinds_may_lie_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    records(tmp_path / "f", "a.jsonl", "abc", "de")
    (tmp_path / "f" / "b.txt.gz").write_bytes(gzip.compress(b"fgh"))
    files(tmp_path / "f", {"c.txt": "ij", "d.json": '{"a": 1}'})
    opened = small(tmp_path / "f").open(1)
    assert bytes(opened.samples[:, :-1].reshape(-1)) == b'abc\0de\0fgh\0ij\0{"a": 1'
    assert sources(opened) == [0, 0, 0, 1, 2, 3, 3]  # the samples begin at bytes 0, 3, … 18; the files at 0, 7, 11, 14


def test_records_that_do_not_fit_in_memory_are_refused_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halos.data.text.OFTEN", 1000)
    monkeypatch.setattr("halos.data.memory.available", lambda: 2**20)
    path = records(tmp_path, "a.jsonl", *["x" * 2**16] * 40)
    with pytest.raises(
        ConfigError, match=r"^path: .*a.jsonl', of which 1 MiB are read, takes 1.1 MiB of memory, 1.0 MiB"
    ):
        small(path).open(1)


def test_the_hash_of_records_is_of_their_texts(tmp_path: Path) -> None:
    one = small(records(tmp_path, "a.jsonl", "abc", "defg")).open(1).hash
    assert small(records(tmp_path, "a.jsonl", "abc", "defg")).open(2).hash == one
    assert small(records(tmp_path, "a.jsonl", "abcd", "efg")).open(1).hash != one
    assert small(records(tmp_path, "a.jsonl", "abcdefg")).open(1).hash != one


# Tokenizers


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer of the letters a to f, 1 to 6, with 7 after each document; what it was made of lies beside it."""
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate("?abcdef")}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens([AddedToken("</s>")])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def tokenised(path: Any, words: Path, **options: Any) -> Text:
    return small(path, tokenizer=words, cache=words.parent / "kept", **options)


def test_documents_are_tokenised_and_joined_with_the_end_of_text(tmp_path: Path, words: Path) -> None:
    source = tokenised(files(tmp_path, {"t/b.txt": "deff", "t/a.txt": "abé"}) + "/t", words)
    assert source.vocabulary() == 8
    assert source.tokenizer_json() == words.read_text()
    opened = source.open(1)
    assert opened.read(slice(0, 9)).tolist() == [[1, 2, 0, 7], [7, 4, 5, 6]]  # and 6, 7, which fill no window
    assert (opened.vocab_size, sources(opened)) == (8, [0, 0])  # the second begins with what ends the first
    assert opened.bytes_per_token == (4 + 4) / (4 + 5)  # é is two bytes and one token
    assert opened.tokenizer == load(words).identity
    assert opened.samples.dtype == np.uint16


def test_a_second_run_does_not_tokenise_again(tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = records(tmp_path, "a.jsonl", *["abc", "de", "f", "abcdef"] * 9)
    first = tokenised(path, words, shuffle=True).open(3)
    monkeypatch.setattr(HuggingFace, "encode", None)
    second = tokenised(path, words, shuffle=True).open(3)
    assert second.hash == first.hash
    assert second.read(slice(0, 99)).tolist() == first.read(slice(0, 99)).tolist()
    assert sources(second) == sources(first) and second.bytes_per_token == first.bytes_per_token
    other = tokenised(path, words, shuffle=True).open(4)  # another order of the same documents, and the same file
    assert other.hash == first.hash and other.read(slice(0, 99)).tolist() != first.read(slice(0, 99)).tolist()
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_the_hash_of_tokens_is_theirs_whatever_the_files_are_called(tmp_path: Path, words: Path) -> None:
    one = tokenised(records(tmp_path, "a.jsonl", "abc", "de"), words).open(1).hash
    assert tokenised(records(tmp_path, "b.jsonl", "abc", "de"), words).open(1).hash == one
    assert tokenised(records(tmp_path, "b.jsonl", "abc", "df"), words).open(1).hash != one
    assert tokenised(records(tmp_path, "b.jsonl", "ab", "cde"), words).open(1).hash != one


def test_another_text_tokenizer_or_field_is_tokenised_anew(tmp_path: Path, words: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "aaaa", "other": "bbbb"}\n')
    assert tokenised(path, words).open(1).read(slice(0, 1)).tolist() == [[1, 1, 1, 1]]
    assert tokenised(path, words, field="other").open(1).read(slice(0, 1)).tolist() == [[2, 2, 2, 2]]
    path.write_text('{"text": "cccc", "other": "bbbb"}\n')
    assert tokenised(path, words).open(1).read(slice(0, 1)).tolist() == [[3, 3, 3, 3]]
    words.write_text(words.read_text().replace('"c":3', '"c":4').replace('"d":4', '"d":3').replace('"c": 3', '"c": 4'))
    assert tokenised(path, words).open(1).read(slice(0, 1)).tolist() == [[4, 4, 4, 4]]


def test_the_order_of_tokenised_documents_is_that_of_bytes(tmp_path: Path, words: Path) -> None:
    path = files(tmp_path / "t", {f"{i}.txt": 3 * "abcdef"[i] for i in range(6)})
    by_bytes = [chr(sample[0]) for sample in small(path, shuffle=True, sequence_length=4).open(5).samples]
    opened = tokenised(path, words, shuffle=True, sequence_length=4).open(5)
    assert ["?abcdef"[sample[0]] for sample in opened.samples] == by_bytes
    assert by_bytes != sorted(by_bytes)


def test_tokens_of_text_that_is_no_utf8_are_refused(tmp_path: Path, words: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(ConfigError, match=r"^path: '.*a.txt' is no UTF-8, which a tokenizer needs: byte 3 of a docum"):
        tokenised(tmp_path / "a.txt", words).open(1)


def test_a_file_that_changes_while_it_is_tokenised_is_not_kept(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(files(tmp_path, {"a.txt": "abcdef"}), "a.txt")
    encode = HuggingFace.encode

    def meanwhile(self: HuggingFace, given: Any) -> Any:
        path.write_text("fedcba, and more")
        return encode(self, given)

    monkeypatch.setattr(HuggingFace, "encode", meanwhile)
    with pytest.raises(ConfigError, match=r"^path: '.*a.txt' changes while it is read$"):
        tokenised(path, words).open(1)
    assert not (tmp_path / "kept").exists()


def test_too_few_tokens_are_said(tmp_path: Path, words: Path) -> None:
    path = files(tmp_path, {"a.txt": "ab"}) + "/a.txt"
    with pytest.raises(
        ConfigError, match=r"^path: '.*' gives 3 tokens \(1 files\); 1 samples of sequence_length 3 nee"
    ):
        tokenised(path, words).open(1)
    (tmp_path / "b.jsonl").write_text('{"text": null}')
    with pytest.raises(ConfigError, match=r"^path: '.*' gives 0 tokens \(1 files\)"):
        tokenised(tmp_path / "b.jsonl", words).open(1)
    with pytest.raises(ConfigError, match=r"^path: '.*' gives 0 bytes \(1 files\)"):
        small(tmp_path / "b.jsonl").open(1)


def test_the_standard_library_can_be_tokenised(tmp_path: Path, words: Path) -> None:
    source = tokenised("stdlib", words, pattern="token*.py")
    assert len(source.open(1)) > 10


def test_one_of_tiktokens_is_a_name_and_all_else_a_path(tmp_path: Path) -> None:
    built = Builder(Plugins()).build(Text, {"tokenizer": "gpt2"}, "")
    assert built.tokenizer == "gpt2" and type(built.tokenizer) is str
    other = Builder(Plugins()).build(Text, {"tokenizer": "gpt3"}, "")
    assert other.tokenizer == Path.cwd() / "gpt3"


def test_a_model_is_built_for_the_tokenizers_vocabulary(tmp_path: Path, words: Path) -> None:
    """8 tokens of width 4, in and out; a block has 12·4² weights, 2·4 + 16 + 3·4 biases, norms 4·4; 2·4 at last."""
    data = {"name": "text", "path": str(records(tmp_path, "a.jsonl", *["abcdef"] * 99)), "tokenizer": str(words)}
    data |= {"cache": str(tmp_path / "kept"), "sequence_length": 8, "validation_samples": 2}
    model = {"name": "gpt_neox", "hidden_size": 4, "layers": 1, "heads": 1}
    expected = 2 * 8 * 4 + 12 * 4**2 + (2 * 4 + 16 + 3 * 4) + 4 * 4 + 2 * 4
    for executor in ("inline", "timing"):
        run = record({**TINY, "data": data, "model": model, "executor": executor})
        assert run.experiment.parameters == expected


def test_a_file_may_be_called_anything(tmp_path: Path) -> None:
    for name in ("one.txt", "other.txt"):
        (tmp_path / name).write_text("all of the same words " * 40, encoding="utf-8")
    one, other = (Text(path=str(tmp_path / f"{name}.txt"), validation_samples=0).open(1) for name in ("one", "other"))
    assert one.hash == other.hash
