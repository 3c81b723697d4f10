"""HParams, as TensorBoard itself makes its table from what runs and sweeps write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from halos.observers.experiment import Experiment
from halos.observers.tensorboard.hparams import METRICS, axes, chosen
from halos.observers.tensorboard.observer import TensorBoard
from halos.world.cluster import Cluster, Region, Worker
from tests.observers.tensorboard.test_observer import rounds, tell

WORKERS = (Worker(0, 0, 1.0), Worker(1, 0, 0.5))
CLUSTER = Cluster((Region(0, "us", WORKERS),), WORKERS, 1.0, 0.0)
CONFIG = {
    "policy": {"name": "diloco", "outer": {"name": "nesterov", "lr": 0.7}, "region": None},
    "train": {"batch_size": 8, "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.95]}},
    "seed": 1,
}


def experiment(folder: Path, **config: Any) -> Experiment:
    folder.mkdir(parents=True, exist_ok=True)
    sections = {**CONFIG, **config}
    return Experiment("run", folder, sections, "diloco", 1, CLUSTER, 16, math.inf, 10, 4, 4, True, {})


def run(folder: Path, finished: Any = True, first: float = 4.0, **config: Any) -> None:
    observer = TensorBoard()
    observer.on_start(experiment(folder, **config))
    tell(observer, rounds(1, losses=(first, 2.0)))
    observer.on_finish({"finished": finished, "simulated_seconds": 10.0, "local_steps": 8})


class Table:
    """What TensorBoard shows of all runs below a folder."""

    def __init__(self, folder: Path) -> None:
        multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
        multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
        given = base_plugin.TBContext(data_provider=provider, logdir=str(folder), multiplexer=multiplexer)
        context, request = backend_context.Context(given), RequestContext()
        metadata = context.hparams_metadata(request, "")
        self.experiment = context.experiment_from_metadata(request, "", True, metadata, [])
        self.hparams = [each.name for each in self.experiment.hparam_infos]
        self.differing = {each.name for each in self.experiment.hparam_infos if each.differs}
        self.metrics = [each.name.tag for each in self.experiment.metric_infos]
        asked = api_pb2.ListSessionGroupsRequest(
            allowed_statuses=list(api_pb2.Status.values()),
            start_index=0,
            slice_size=100,
            col_params=[api_pb2.ColParams(metric=each.name) for each in self.experiment.metric_infos],
            include_metrics=True,
        )
        self.rows = list_session_groups.Handler(request, context, "", asked).run().session_groups

    def values(self, metric: str) -> dict[str, float]:
        return {
            row.name: round(each.value, 6) for row in self.rows for each in row.metric_values if each.name.tag == metric
        }


def test_a_run_is_known_by_its_labels_and_the_main_keys_of_its_configuration(tmp_path: Path) -> None:
    assert chosen(experiment(tmp_path, labels={"method": "DiLoCo", "seed": "one"})) == {
        "policy.name": "diloco",
        "policy.outer.name": "nesterov",
        "policy.outer.lr": 0.7,
        "train.batch_size": 8,
        "train.optimizer.name": "adamw",
        "train.optimizer.lr": 1e-3,
        "workers": 2,
        "regions": 1,
        "parameters": 4,
        "method": "DiLoCo",
        "seed": "one",  # a label before the key of its name
    }


def test_a_run_alone_is_one_row_with_its_last_values_and_no_sub_runs(tmp_path: Path) -> None:
    run(tmp_path / "a")
    table = Table(tmp_path)
    (row,) = table.rows
    assert row.name == "a" and [each.name for each in row.sessions] == ["a"]
    assert row.sessions[0].status == api_pb2.STATUS_SUCCESS
    assert row.hparams["policy.outer.lr"].number_value == 0.7
    assert table.values("loss/train") == {"a": 3.0} and table.values("loss/validation") == {"a": 5.0}
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and len(list((tmp_path / "a").iterdir())) == 1


def test_runs_beside_each_other_are_a_row_each_and_what_differs_comes_first(tmp_path: Path) -> None:
    run(tmp_path / "a", labels={"speeds": "none"})
    run(tmp_path / "b", first=6.0, labels={"speeds": "very"})
    run(tmp_path / "again", labels={"speeds": "none"})  # the same as the first, and a row of its own
    table = Table(tmp_path)
    assert table.differing == {"speeds"} and table.hparams[0] == "speeds"
    assert table.values("loss/train") == {"a": 3.0, "b": 4.0, "again": 3.0}


def test_an_interrupted_run_has_failed_and_of_one_without_an_end_it_is_unknown(tmp_path: Path) -> None:
    run(tmp_path / "cut", finished="interrupted")
    going = TensorBoard()
    going.on_start(experiment(tmp_path / "going"))
    tell(going, rounds(1))
    going._writer.flush()
    status = {row.name: row.sessions[0].status for row in Table(tmp_path).rows}
    assert status == {"cut": api_pb2.STATUS_FAILURE, "going": api_pb2.STATUS_UNKNOWN}


def test_a_sweep_compares_its_axes_alone_and_says_which_results_count(tmp_path: Path) -> None:
    run(tmp_path / "a", labels={"method": "DiLoCo", "speeds": "none"})
    run(tmp_path / "b", first=6.0, labels={"method": "DiLoCo", "speeds": "very"})
    axes(tmp_path, {"speeds": ["none", "very"]})
    axes(tmp_path, {"method": ["DiLoCo"], "speeds": ["none", "very"]})  # asked for again, with another axis
    table = Table(tmp_path)
    assert sorted(table.hparams) == ["method", "speeds"]
    assert table.metrics == list(METRICS)
    assert table.values("loss/train") == {"a": 3.0, "b": 4.0}
    assert [dict(row.hparams)["speeds"].string_value for row in table.rows] == ["none", "very"]
    assert len(list(tmp_path.glob("events.out.tfevents*"))) == 1


def test_axes_of_numbers_and_of_numbers_and_texts_are_columns_that_hide_no_run(tmp_path: Path) -> None:
    run(tmp_path / "a", labels={"lr": 0.5, "H": 1})
    run(tmp_path / "b", labels={"lr": 1, "H": "none"})
    axes(tmp_path, {"lr": [0.5, 1], "H": [1, "none"]})
    table = Table(tmp_path)
    assert sorted(table.hparams) == ["H", "lr"]
    assert [dict(row.hparams)["lr"].number_value for row in table.rows] == [0.5, 1.0]
    infos = {
        info.name: [value.number_value for value in info.domain_discrete.values]
        for info in table.experiment.hparam_infos
    }
    assert infos == {"lr": [0.5, 1.0], "H": []}


@pytest.mark.parametrize("labels", [None, {}, {"k": 3}, {"on": True, "share": 0.5}])
def test_labels_are_texts_numbers_or_none_at_all(tmp_path: Path, labels: Any) -> None:
    run(tmp_path / "a", labels=labels)
    (row,) = Table(tmp_path).rows
    assert set(labels or {}) <= set(row.hparams)
