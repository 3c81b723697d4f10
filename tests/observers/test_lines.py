"""Files of lines: whole, and exact in a resumed run."""

import math
import zlib

import pytest

from halos.errors import UserError
from halos.observers.lines import Lines
from tests.observers.full_disk import FullDisk


def test_a_full_disk_is_one_clear_line_and_leaves_whole_lines(tmp_path):
    lines = Lines(tmp_path / "updates.jsonl")
    lines.add('{"n": 1}')
    lines.flush()
    lines._file = FullDisk(lines._file, room=12)  # the next line fits, the one after it does not
    lines.add('{"n": 2}')
    lines.add('{"n": 3}')
    with pytest.raises(
        UserError, match=r"updates.jsonl cannot be written: No space left on device; .* is intact"
    ) as error:
        lines.flush()
    assert "\n" not in str(error.value)
    assert (tmp_path / "updates.jsonl").read_text() == '{"n": 1}\n'
    lines.close()  # what could not be written is not tried again


def test_a_record_is_a_line_of_json_with_null_for_what_is_no_finite_number(tmp_path):
    lines = Lines(tmp_path / "own.jsonl")
    said = lines.record({"a": [1, math.nan], "b": {"c": math.inf}})
    assert said == {"a": [1, None], "b": {"c": None}}
    lines.close()
    assert (tmp_path / "own.jsonl").read_text() == '{"a": [1, null], "b": {"c": null}}\n'


def resumed(path, state):
    lines = Lines(path, resumed=True)
    lines.restore(state)
    return lines


def test_a_state_is_what_is_on_the_disk_and_a_resumed_run_is_cut_back_to_it(tmp_path):
    path = tmp_path / "own.jsonl"
    lines = Lines(path)
    lines.add("one")
    state = lines.state()
    assert path.read_bytes() == b"one\n" and state == {"length": 4, "crc": zlib.crc32(b"one\n")}
    lines.add("two")
    lines.close()
    again = resumed(path, state)
    assert path.read_bytes() == b"one\ntwo\n"  # nothing is touched yet
    again.go_on()
    again.add("three")
    assert again.state() == {"length": 10, "crc": zlib.crc32(b"one\nthree\n")}
    assert path.read_bytes() == b"one\nthree\n"


def test_without_a_state_a_resumed_run_begins_the_file_anew(tmp_path):
    (tmp_path / "own.jsonl").write_bytes(b"of before\n")
    lines = Lines(tmp_path / "own.jsonl", resumed=True)
    lines.go_on()
    assert (tmp_path / "own.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("there", "said"),
    [(b"one", "1 bytes of it are missing"), (None, "4 bytes of it are missing"), (b"ane\ntwo\n", "it was changed")],
)
def test_a_file_that_does_not_begin_with_what_was_counted_is_refused_and_left_alone(tmp_path, there, said):
    path = tmp_path / "own.jsonl"
    if there is not None:
        path.write_bytes(there)
    with pytest.raises(UserError, match=f"own.jsonl is not what this run wrote: {said}"):
        resumed(path, {"length": 4, "crc": zlib.crc32(b"one\n")})
    assert path.read_bytes() == there if there is not None else not path.exists()
