"""The arrows of a whole run, against what is worked out by hand; and those of what cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path

from halos.config.config import load_config
from halos.config.yaml_text import to_yaml
from halos.observers.trace.arrows import BEGINS, GOES_ON, Arrows, Done, arrows
from halos.observers.trace.rows import Compute, Slice
from halos.run.lifecycle import run
from halos.values.records import Transfer
from tests.observers.trace.test_observer import Picture

# Two workers of one region; a step is 1 s and 2 s, a job 2 steps, and 1 MB over the link 1 s.
TWO = {
    "cluster": {"step_time_ms": 1000, "regions": [{"name": "us", "workers": [1.0, 0.5]}]},
    "network": {"bandwidth_gbps": 0.008},
    "model": {"name": "sized", "parameters": 250_000},
    "data": {"name": "synthetic"},
    "steps": {"name": "fixed", "base": 2},
    "policy": {"name": "async_local_sgd"},
    "budget": {"simulated_hours": 9 / 3600},
    "executor": {"name": "timing"},
    "observers": {"progress": False, "tensorboard": False},
}


def test_a_run_of_two_workers_and_one_link_is_as_worked_out_by_hand(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(to_yaml(TWO))
    run(*load_config(str(tmp_path / "two.yaml"), [f"out={tmp_path / 'run'}"]))
    picture = Picture(json.loads((tmp_path / "run/trace.json").read_text()))
    cut_off = {"lost": None, "steps": 2}
    assert json.loads((tmp_path / "run/summary.json").read_text())["unfinished"] == {
        "jobs": [
            {"worker": 0, "began": 8.0, "computes": 9.0, "until": 11.0, **cut_off},
            {"worker": 1, "began": 6.0, "computes": 7.0, "until": 11.0, **cut_off},
        ],
        "collective_since": None,
    }
    fast, slow, link, beside = "worker 0 (speed 1)", "worker 1 (speed 0.5)", "us → us", "us → us #2"
    server = "commits of global"
    train, cut = "train 2 steps", "train 2 steps (unfinished)"
    assert picture.rows["us", fast] == [
        *[(0, 1, "pull"), (1, 3, train), (3, 4, "push")],
        *[(4, 5, "pull"), (5, 7, train), (7, 8, "push")],
        (8, 9, "pull"),  # at 9 s the time is over; as it would train from now on
    ]
    assert picture.rows["us", slow] == [
        *[(0, 1, "pull"), (1, 5, train), (5, 6, "push")],
        *[(6, 7, "pull"), (7, 9, cut)],
    ]
    assert picture.rows["links", link] == [
        *[(0, 1, "pull to worker 0"), (3, 4, "push from worker 0"), (4, 5, "pull to worker 0")],
        *[(5, 6, "push from worker 1"), (7, 8, "push from worker 0")],
    ]
    assert picture.rows["links", beside] == [(0, 1, "pull to worker 1")]
    assert picture.commits == {server: [(4, "commit 1"), (6, "commit 2"), (8, "commit 3")]}
    assert picture.ways("model") == [
        [(0, link, "pull to worker 0"), (1, fast, train)],
        [(0, beside, "pull to worker 1"), (1, slow, train)],
        [(4, server, "commit 1"), (4, link, "pull to worker 0"), (5, fast, train)],
    ]
    assert picture.ways("update") == [
        [(3, fast, "push"), (3, link, "push from worker 0"), (4, server, "commit 1")],
        [(5, slow, "push"), (5, link, "push from worker 1"), (6, server, "commit 2")],
        [(7, fast, "push"), (7, link, "push from worker 0"), (8, server, "commit 3")],
    ]


PULL, PUSH = (Transfer(*moments, 0, 0, 8, kind, 0, 0) for kind, moments in (("pull", (0.0, 1.0)), ("push", (3.0, 4.0))))
CARRIED: list[Slice] = [(0, 1_000_000, PULL), (3_000_000, 4_000_000, PUSH)]
JOB = (1_000_000, 3_000_000, Compute(1.0, 3.0, 0, 2, 0, 0, 7, 1))
COMMIT = Done(4.0, 1, "global", (7,), 2, None)


def bound(found: Arrows) -> int:
    """To how many slices something is bound."""
    return sum(len(places) for places in found)


def test_a_job_has_two_arrows_and_each_an_id_of_its_own() -> None:
    found = arrows([JOB], CARRIED, [COMMIT], [])
    assert found.links == {id(PULL): (BEGINS, found.pulled[7]), id(PUSH): (GOES_ON, found.pushes[id(PUSH)])}
    assert found.came == {0: [found.pushes[id(PUSH)]]} and not found.left and not found.trained
    assert found.pulled[7] != found.pushes[id(PUSH)]


def test_what_found_no_room_has_no_arrow() -> None:
    assert bound(arrows([JOB], CARRIED, [COMMIT], CARRIED)) == 0
    assert bound(arrows([JOB], CARRIED, [COMMIT], CARRIED[:1])) == 3  # the push's: worker, link, commit


def test_a_transfer_that_is_not_the_job_s_is_not_taken_for_it() -> None:
    other = [(start, end, what._replace(worker=1)) for start, end, what in CARRIED]  # type: ignore[union-attr]
    assert bound(arrows([JOB], other, [COMMIT], [])) == 0
