"""The tape: what was recorded is what is replayed, in order, and no more or less of it."""

from __future__ import annotations

import pytest

from halos.resume.tape import ReplayDiffers, Tape


def never() -> float:
    raise AssertionError("a replay computes nothing")


def test_a_replay_returns_what_was_recorded_without_computing_it() -> None:
    tape = Tape(recording=True)
    assert [tape.number(lambda: 1.5), tape.number(max, 2.5, 0.5)] == [1.5, 2.5]
    tape.add(3.0, 4.0)
    assert (tape.numbers.tolist(), tape.count) == ([1.5, 2.5, 3.0, 4.0], 4)
    replay = Tape(earlier=tape.numbers)
    assert [replay.number(never), replay.number(never), *replay.take(2)] == [1.5, 2.5, 3.0, 4.0]
    assert replay.count == 4


def test_a_replay_that_has_gone_live_computes_and_records_again() -> None:
    tape = Tape(earlier=[1.5])
    assert tape.number(never) == 1.5
    tape.go_live()
    assert tape.number(lambda: 2.5) == 2.5
    assert tape.numbers.tolist() == [1.5, 2.5]


def test_a_replay_that_takes_more_or_fewer_numbers_has_strayed() -> None:
    with pytest.raises(ReplayDiffers, match=r"^it takes more numbers out of parameters than before the checkpoint$"):
        Tape(earlier=[1.5]).take(2)
    tape = Tape(earlier=[1.5, 2.5])
    tape.take(1)
    with pytest.raises(ReplayDiffers, match=r"^it takes fewer numbers out of parameters than before the checkpoint$"):
        tape.go_live()


def test_a_count_is_a_whole_number() -> None:
    assert Tape(earlier=[3.0]).take_count() == 3
    for wrong in (1.5, -1.0):
        with pytest.raises(ReplayDiffers, match=f"^it finds {wrong} where the checkpoint should say how many losses"):
            Tape(earlier=[wrong]).take_count()


def test_texts_and_numbers_that_may_be_none_come_back() -> None:
    tape = Tape(recording=True)
    tape.add_text("größe")
    tape.add_optional(None)
    tape.add_optional(2.5)
    again = Tape(earlier=tape.numbers.tolist())
    assert (again.take_text(), again.take_optional(), again.take_optional()) == ("größe", None, 2.5)
    for wrong in ([2.0, 300.0, 1.0], [1.0, 255.0]):  # no byte; no text
        with pytest.raises(ReplayDiffers, match=r"^it finds numbers where the checkpoint should name a metric$"):
            Tape(earlier=wrong).take_text()


def test_a_number_out_of_other_numbers_is_one() -> None:
    tape = Tape(recording=True)
    assert tape.number(lambda: tape.number(lambda: 2.0) + tape.number(lambda: 3.0)) == 5.0
    assert tape.numbers.tolist() == [5.0]


def test_what_observers_compute_is_not_on_the_tape() -> None:
    tape, heard = Tape(recording=True), []
    listener = tape.beside(lambda record: heard.append(tape.number(lambda: record + 1.0)))
    listener(1.0)
    assert (heard, tape.count, tape.aside) == ([2.0], 0, False)
    with pytest.raises(ZeroDivisionError):
        tape.beside(lambda record: record / 0)(1.0)
    assert not tape.aside


def test_without_a_recording_numbers_only_pass_through() -> None:
    tape = Tape()
    assert tape.number(lambda: 1.5) == 1.5
    tape.add(2.5)
    assert tape.count == 0
