"""Records: what follows from their fields, and the lines they become."""

from __future__ import annotations

import json
import math

import pytest

from halos.values.params import Params
from halos.values.records import (
    Commit,
    Contribution,
    EndToEnd,
    Evaluation,
    Transfer,
    mean_loss,
)
from tests.made import params, share, update


def flat(theta: Params) -> list[float]:
    assert theta.flat is not None
    return theta.flat.tolist()


def test_the_pseudo_gradient_leads_away_from_where_the_update_ended() -> None:
    one = update()  # from (1, 1) to (0.5, 2)
    assert (flat(one.delta), flat(one.end)) == ([0.5, -1.0], [0.5, 2.0])
    half = update(factor=0.5)
    assert (flat(half.delta), flat(half.end)) == ([0.25, -0.5], [0.75, 1.5])


def test_from_elsewhere_it_is_the_way_from_there() -> None:
    theta = params(2.0, 2.0)
    assert flat(update().since(theta)) == [1.5, 0.0]
    assert flat(update(factor=0.5).since(theta)) == [0.75, 0.0]
    one = update()
    assert flat(one.since(one.start)) == [0.5, -1.0]


def test_of_a_job_that_asked_for_a_gradient_that_is_the_pseudo_gradient() -> None:
    start = params(1.0, 1.0)
    asked = update(start=start, params=start, gradient=params(0.25, 4.0), factor=2.0)
    assert (flat(asked.delta), flat(asked.end)) == ([0.5, 8.0], [0.5, -7.0])


def test_a_receipt_has_all_but_the_tensors() -> None:
    receipt = update(7, steps=5, gradient=params(0.0, 0.0)).receipt()
    assert (receipt.id, receipt.steps, receipt.samples, receipt.losses) == (7, 5, (4, 9), (0.5, 0.25))
    assert receipt.start.hollow and receipt.params.hollow and receipt.gradient is None


def test_an_update_becomes_a_line_and_a_loss_that_is_no_number_null() -> None:
    one = update(3, steps=2, losses=(0.5, math.nan), server=1, global_version=5)
    assert one.as_json() == (
        '{"id":3,"time":2.0,"worker":1,"region":0,"steps":2,"start_time":0.0,"start_version":3,"global_version":5,'
        '"delta_norm":null,"first_sample":4,"end_sample":6,"lr_step":2,"loss":null,"losses":[0.5,null],"server":1}'
    )
    assert json.loads(update(losses=()).as_json())["losses"] == []


def test_a_transfer_and_a_collective_become_lines() -> None:
    pull = Transfer(1.5, 2.0, 0, 1, 16, "pull", worker=3, server=0)
    assert json.loads(pull.as_json()) == {
        "start_time": 1.5, "time": 2.0, "src": 0, "dst": 1, "bytes": 16, "kind": "pull", "worker": 3, "server": 0,
    }  # fmt: skip
    all_reduce = json.loads(Transfer(1.5, 2.0, None, None, 16, "all_reduce").as_json())
    assert [all_reduce[key] for key in ("src", "dst", "worker", "server")] == [None] * 4


def test_a_commit_becomes_a_line_with_its_contributions() -> None:
    ways = (EndToEnd(2, 7.5, 0.25), EndToEnd(3, 8.0, math.nan))
    shares = (
        share(update(0, steps=2), staleness=1, drift=0.5),
        share(update(1, steps=3, factor=0.5), update(2, steps=4), drift=math.nan, ways=ways),
    )
    assert [share.steps for share in shares] == [2, 7]
    commit = Commit(2.0, 6, 'say "hi"', "update", 9, shares, params(0.0, 0.0), 5.0)
    assert json.loads(commit.as_json()) == {
        "time": 2.0, "version": 6, "server": 'say "hi"', "kind": "update", "local_steps": 9,
        "norm": 5.0, "step_norm": None,
        "contributions": [
            {
                "updates": [0], "workers": [1], "factors": [1.0], "steps": 2,
                "from_version": 0, "hop_staleness": 1, "hop_drift": 0.5,
                "end_to_end": [],
            },
            {
                "updates": [1, 2], "workers": [1, 1], "factors": [0.5, 1.0], "steps": 7,
                "from_version": 0, "hop_staleness": 0,
                "hop_drift": None,
                "end_to_end": [
                    {"staleness": 2, "seconds": 7.5, "drift": 0.25}, {"staleness": 3, "seconds": 8.0, "drift": None},
                ],
            },
        ],
    }  # fmt: skip


def test_an_evaluation_becomes_a_line() -> None:
    metrics = {"perplexity": math.inf, "accuracy": None, "its own": 0.5}
    assert json.loads(Evaluation(2.0, 1, 8, 9, 512, math.inf, "wiki", metrics=metrics).as_json()) == {
        "time": 2.0, "version": 1, "local_steps": 8, "trained_steps": 9, "tokens": 512, "loss": None, "set": "wiki",
        "of": "global", "metrics": {"perplexity": None, "accuracy": None, "its own": 0.5},
    }  # fmt: skip
    assert Evaluation(2.0, 1, 8, 9, 512, 1.0, "wiki").as_json().endswith('"of":"global","metrics":{}}')


def test_a_record_can_be_changed_into_another_and_taken_apart_like_a_named_tuple() -> None:
    pull = Transfer(1.5, 2.0, 0, 1, 16, "pull", worker=3, server=0)
    push = pull._replace(kind="push", src=1, dst=0)
    assert push == Transfer(1.5, 2.0, 1, 0, 16, "push", 3, 0) and pull.kind == "pull"
    start, end, *_, worker, server = push
    assert (start, end, worker, server) == (1.5, 2.0, 3, 0)
    assert push._asdict() == json.loads(push.as_json())  # whose line has its very fields
    with pytest.raises(AttributeError):
        pull.kind = "push"  # type: ignore[misc]


def test_the_loss_of_an_update_is_its_executors_mean_or_that_of_its_chunks_by_their_steps() -> None:
    one = update(steps=5, losses=(1.0, 6.0), chunks=(4, 1))
    assert one.train_loss == 2.0  # (4 · 1 + 6) / 5
    assert one._replace(loss=1.5).train_loss == 1.5
    assert update(losses=(), chunks=()).train_loss is None
    assert json.loads(one.as_json())["loss"] == 2.0


def test_the_loss_of_a_commit_is_the_mean_over_its_local_steps() -> None:
    several = update(steps=3, losses=(1.0, 4.0), chunks=(2, 1)), update(steps=1, losses=(6.0,), chunks=(1,))
    commit = Commit(1.0, 1, "global", "update", 4, (share(*several),), params(0.0, 0.0))
    assert mean_loss(commit) == 3.0  # (2 · 1 + 4 + 6) / 4
    assert mean_loss(commit._replace(shares=())) is None
    assert mean_loss(commit._replace(shares=(share(update(losses=(math.nan,))),))) is None


def test_contributions_are_equal_only_to_themselves() -> None:
    one, other = (Contribution([], params(0.0, 0.0), params(1.0, 1.0)) for _ in range(2))
    assert one == one
    assert one != other
