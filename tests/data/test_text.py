"""Text files as a corpus of bytes."""

import os
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halos.config.builder import Builder
from halos.data import ArrayCorpus
from halos.data.files import File, find
from halos.data.text import Document, Text
from halos.errors import ConfigError
from halos.plugins.registry import Plugins


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
        (None, "path: None is not 'stdlib' or a path or a list, each 'stdlib' or a path"),
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
