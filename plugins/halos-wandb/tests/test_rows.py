"""What becomes a row, and when: by hand, of records that are made here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from halos_wandb.rows import Mean, Row, Rows, Sparse

from halos import Commit, EndToEnd, Evaluation, Experiment, Share, Transfer, Update
from halos.testing import record, tiny


def test_all_of_the_first_points_are_let_through_then_ever_fewer() -> None:
    sparse = Sparse(4)
    let = [number for number in range(1, 31) if sparse.due()]
    # The next one is a quarter further on: 8 + 2, 10 + 2, 12 + 3, 15 + 3, 18 + 4, 22 + 5.
    assert let == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27]


def test_a_million_records_are_few_points() -> None:
    sparse = Sparse(500)
    assert 500 < sum(sparse.due() for _ in range(1_000_000)) < 500 * (1 + 10)  # 500 (1 + ln 2000) = 4,300


def test_a_mean_is_weighed_and_leaves_out_what_is_no_number() -> None:
    mean = Mean()
    for value, weight in ((1.0, 1), (4.0, 2), (float("nan"), 5), (float("inf"), 5), (None, 5)):
        mean.add(value, weight)
    assert mean.take() == 3.0
    assert mean.take() != mean.take(), "nothing since: not a number"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """Of two regions with one and two workers; a step is 8 tokens."""
    cluster = {"regions": [{"name": "us", "workers": [1.0]}, {"name": "eu", "workers": [1.0, 1.0]}]}
    return record(tiny(cluster={**cluster, "step_time_ms": 1000.0})).experiment


def update(loss: Any, steps: int = 2, region: int = 0, **more: Any) -> Update:
    computed = {
        "compute": (0.0, float(steps)),
        "lr_step": 7,
        "region": region,
        "losses": (),
        "chunks": (),
        "loss": loss,
    }
    blank = dict.fromkeys(Update.__struct_fields__[: -len(Update.__struct_defaults__)])
    return Update(**{**blank, "steps": steps, **computed, **more})


def commit(
    time: float, steps: int, *updates: Update, version: int = 1, server: str = "global", kind: str = "update"
) -> Any:
    ways = tuple(EndToEnd(staleness=4, seconds=1.0, drift=0.5) for _ in updates)
    share = Share(
        updates=updates, from_version=0, hop_staleness=2, hop_drift=0.25, base=None, target=None, end_to_end=ways
    )  # type: ignore[arg-type]
    blank = dict.fromkeys(Commit.__struct_fields__)
    fields = {"time": time, "local_steps": steps, "version": version, "server": server, "kind": kind}
    return Commit(**{**blank, **fields, "shares": (share,) if updates else ()})


def evaluation(time: float, loss: float, of: str = "global", tokens: int = 16) -> Evaluation:
    return Evaluation(time, 1, 2, 2, tokens, loss, "validation", of, {"perplexity": 3.0, "accuracy": None})


def test_a_commit_is_a_row_with_its_axes_and_the_means_of_what_it_brought(experiment: Experiment) -> None:
    rows = Rows(experiment, points=10)
    first, second = update(3.0, steps=1), update(6.0, steps=2, region=1)
    for each in (first, second):
        rows.update(each)
    rows.lost(SimpleNamespace())  # type: ignore[arg-type]
    for src, dst, kind, nbytes in (
        (0, 1, "pull", 3_000_000),
        (1, 0, "push", 1_000_000),
        (None, None, "all_reduce", 500_000),
    ):
        rows.transfer(Transfer(0.0, 1.0, src, dst, nbytes, kind))
    row = rows.commit(commit(1800.0, 3, first, second, version=1))
    assert row == Row(
        100,
        {
            "simulated hours": 0.5, "tokens": 24, "local steps": 3,
            "loss/train": 5.0, "loss by tokens/train": 5.0, "loss by local steps/train": 5.0,
            "staleness/hop (versions)": 2.0, "staleness/end to end (versions)": 4.0,
            "drift/hop (L2 distance)": 0.25, "drift/end to end (L2 distance)": 0.5,
            "progress/global model (versions)": 1, "progress/learning rate (steps of its schedule)": 7,
            "progress/lost jobs": 1,
            "utilization/us": 1 / 1800, "utilization/eu": 2 / 3600,
            "traffic/total (MB)": 4.5, "traffic/pull (MB)": 3.0, "traffic/push (MB)": 1.0,
            "traffic/all_reduce (MB)": 0.5, "traffic/us → eu (MB)": 3.0, "traffic/eu → us (MB)": 1.0,
        },
    )  # fmt: skip


def test_what_has_no_row_of_its_own_is_in_the_mean_of_the_next_or_comes_at_the_end(experiment: Experiment) -> None:
    rows = Rows(experiment, points=1)  # the first, second, fourth, eighth
    made = [rows.commit(commit(time, 2, update(float(time)))) for time in range(1, 7)]
    assert [row and (row.number, row.values["loss/train"]) for row in made] == [
        (100, 1.0), (200, 2.0), None, (400, 3.5), None, None,
    ]  # fmt: skip
    seen = [rows.evaluation(evaluation(6.0 + index, 1.0 + index)) for index in range(3)]
    assert [row and (row.number, row.values["loss/validation"]) for row in seen] == [(700, 1.0), (800, 2.0), None]
    rest = list(rows.rest())
    assert [(row.number, row.values.get("loss/train"), row.values.get("loss/validation")) for row in rest] == [
        (901, 5.5, None), (902, None, 3.0),
    ]  # fmt: skip
    assert list(rows.rest()) == []


def test_only_the_global_servers_updates_make_rows_and_what_is_unknown_is_left_out(experiment: Experiment) -> None:
    rows = Rows(experiment, points=10)
    assert rows.commit(commit(1.0, 2, update(1.0), server="local 0")) is None
    assert rows.commit(commit(1.0, 2, kind="merge")) is None
    row = rows.commit(commit(0.0, 2, update(None)))
    assert row is not None and row.number == 100
    assert not {"loss/train", "utilization/us"} & row.values.keys() and row.values["tokens"] == 16


def test_models_and_metrics_have_curves_of_their_own(experiment: Experiment) -> None:
    rows = Rows(experiment, points=10)
    row = rows.evaluation(evaluation(3600.0, 2.0, of="anchor"))
    assert row == Row(
        100,
        {
            "simulated hours": 1.0, "tokens": 16, "local steps": 2, "loss/validation of anchor": 2.0,
            "loss by tokens/validation of anchor": 2.0, "loss by local steps/validation of anchor": 2.0,
            "metrics/perplexity on validation of anchor": 3.0,
        },
    )  # fmt: skip


def test_with_many_regions_there_are_no_curves_by_link() -> None:
    regions = [{"workers": [1.0]}] * 7
    rows = Rows(record(tiny(cluster={"regions": regions, "step_time_ms": 1000.0})).experiment, points=10)
    rows.transfer(Transfer(0.0, 1.0, 0, 1, 1_000_000, "pull"))
    row = rows.commit(commit(1.0, 2, update(1.0)))
    assert row is not None
    assert [name for name in row.values if name.startswith("traffic")] == ["traffic/total (MB)", "traffic/pull (MB)"]
