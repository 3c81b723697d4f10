"""An executor on tape: passed on and noted at first, replayed without training, then live."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from halos.errors import ConfigError, UserError
from halos.resume.replay import Taped
from halos.resume.tape import Tape
from halos.training import Job, Outcome
from halos.values.params import Params
from tests.made import params


class Fake:
    """Every job ends at (2, 2), after losses 0.5 and 0.25 over 4 and 3 steps; it notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def submit(self, job: Job) -> None:
        self.asked.append(("submit", job.id))

    def result(self, job: Job) -> Outcome:
        self.asked.append(("result", job.id))
        return Outcome(params(2.0, 2.0), (0.5, 0.25), (4, 3), 0.375)

    def evaluate(self, theta: Params, name: str) -> Optional[float]:
        self.asked.append(("evaluate", name))
        return None if name == "nothing" else 1.25

    def step(self, theta: Params, gradient: Params, lr_step: int) -> Params:
        self.asked.append(("step", lr_step))
        return theta - gradient

    def forget(self, worker: int) -> None:
        self.asked.append(("forget", worker))

    def state(self) -> dict[str, Any]:
        return {"moments": 7}

    def restore(self, state: dict[str, Any]) -> None:
        self.asked.append(("restore", state["moments"]))


RECORDED = [2, 0.5, 0.25, 4, 3, 1, 0.375, 1, 4, *b"loss", 1.25, 0]  # two losses, their chunks, the mean; one; none


def taped(fake: Any, earlier: Optional[list[float]] = None) -> tuple[Taped, Tape]:
    tape = Tape(recording=True, earlier=earlier)
    return Taped(fake, tape), tape


def job(id: int = 0, worker: int = 0) -> Job:
    return Job(id, worker, params(0.0, 0.0), 7, 0, 0, 7, 0, 0.0)


def test_jobs_are_passed_on_and_their_numbers_kept() -> None:
    fake = Fake()
    executor, tape = taped(fake)
    executor.submit(job())
    outcome = executor.result(job())
    assert outcome.params.flat is not None and outcome.params.flat.tolist() == [2.0, 2.0]
    assert [executor.evaluate(outcome.params, name) for name in ("validation", "nothing")] == [{"loss": 1.25}, None]
    assert tape.numbers.tolist() == RECORDED
    assert fake.asked == [("submit", 0), ("result", 0), ("evaluate", "validation"), ("evaluate", "nothing")]


def test_a_replay_has_the_same_numbers_hollow_parameters_and_asks_nobody() -> None:
    fake = Fake()
    executor, _ = taped(fake, RECORDED)
    executor.submit(job())
    outcome = executor.result(job())
    assert outcome.params.hollow and outcome[1:] == ((0.5, 0.25), (4, 3), 0.375)
    assert [executor.evaluate(outcome.params, name) for name in ("validation", "nothing")] == [{"loss": 1.25}, None]
    assert executor.step(outcome.params, outcome.params, 3).hollow
    executor.forget(0)
    assert fake.asked == []


def test_going_live_restores_the_state_and_then_submits_what_is_under_way() -> None:
    fake = Fake()
    executor, tape = taped(fake, RECORDED[:7])
    for each in (job(0, worker=0), job(1, worker=1)):
        executor.submit(each)
    executor.result(job(0, worker=0))
    executor.submit(job(2, worker=0))
    tape.go_live()
    executor.go_live({"moments": 7})
    assert fake.asked == [("restore", 7), ("submit", 1), ("submit", 2)]
    executor.forget(1)
    stepped = executor.step(params(3.0, 3.0), params(1.0, 2.0), 5)
    assert stepped.flat is not None and stepped.flat.tolist() == [2.0, 1.0]
    assert fake.asked[3:] == [("forget", 1), ("step", 5)]


def test_a_state_that_the_executor_does_not_know_is_said_in_one_line() -> None:
    executor, _ = taped(Fake(), [])
    said = r"^the run cannot be resumed: the executor cannot go on from what it saved: KeyError: 'moments'$"
    with pytest.raises(UserError, match=said):
        executor.go_live({})


def test_an_executor_that_has_no_state_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint: executor object cannot: it has no methods state and restore$"):
        taped(object())
