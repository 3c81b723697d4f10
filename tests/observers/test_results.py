"""`results.pt`: upstream's histories."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from halos.observers.experiment import Experiment
from halos.observers.results import Results
from halos.values.params import Layout, Params
from halos.values.records import Commit, Evaluation, Update
from halos.world.cluster import Cluster, Region, Worker
from tests.made import share

PARAMS = Params(Layout({"a": (2, 2)}), None)
WORKER = Worker(0, 0, 1.0)
GOLDEN = Path(__file__).parents[1] / "golden"


def experiment(folder, resumed_at=None):
    cluster = Cluster((Region(0, "here", (WORKER,)),), (WORKER,), 1.0, 0.0)
    return Experiment("run", folder, {}, "diloco", 1, cluster, 16, math.inf, 64, 4, 8, True, {}, resumed_at)


def update(losses, chunks, worker=0):
    return Update(
        0, worker, 0, PARAMS, PARAMS, sum(chunks), 0.0, 1.0, 0, (0, 1), 0, tuple(losses), tuple(chunks), (0.0, 1.0)
    )  # fmt: skip


def commit(time, updates, version=1, server="global", kind="update"):
    steps = sum(each.steps for each in updates)
    return Commit(time, version, server, kind, steps, tuple(share(each) for each in updates), PARAMS)


def results(folder, records, resumed_at=None):
    observer = Results()
    observer.on_start(experiment(folder, resumed_at))
    for record in records:
        (observer.on_commit if isinstance(record, Commit) else observer.on_evaluate)(record)
    observer.on_finish({})
    return torch.load(folder / "results.pt", weights_only=False)


def lists(histories):
    return {key: value.tolist() for key, value in histories.items()}


FIRST = [update([4.0, 2.0], [8, 3])]
SECOND = [update([1.0], [8]), update([3.0], [8], worker=1)]


def test_histories_have_an_entry_per_chunk_and_per_commit_of_the_global_model(tmp_path):
    found = results(
        tmp_path,
        [
            commit(1.5, FIRST),
            commit(1.6, SECOND, server="local-0"),
            commit(1.7, [], kind="merge"),
            commit(2.5, SECOND),
        ],
    )
    assert found["num_steps_history"].tolist() == [8, 11, 19, 27]
    assert found["loss_history"].tolist() == [4.0, 2.0, 1.0, 3.0]
    assert found["perplexity_history"].tolist() == pytest.approx([math.exp(loss) for loss in (4, 2, 1, 3)])
    assert found["time_history"].tolist() == [1500.0, 2500.0]
    assert found["loss_over_time_history"].tolist() == [3.0, 2.0]
    assert found["perplexity_over_time_history"].tolist() == pytest.approx([math.exp(3), math.exp(2)])
    assert all(isinstance(value, np.ndarray) for value in found.values())


def test_validation_is_that_of_the_global_model_after_the_start(tmp_path):
    found = results(
        tmp_path,
        [
            Evaluation(0.0, 0, 0, 0, 0, 6.0, "validation"),
            Evaluation(2.0, 1, 8, 9, 90, 5.0, "validation"),
            Evaluation(2.0, 1, 8, 9, 90, 5.5, "german"),
            Evaluation(2.0, 1, 8, 9, 90, 5.6, "validation", "mean"),
        ],
    )
    assert found["val_steps_history"].tolist() == [8]
    assert found["val_time_history"].tolist() == [2000.0]
    assert found["val_loss_history"].tolist() == [5.0]
    assert found["val_perplexity_history"].tolist() == pytest.approx([math.exp(5)])


def test_a_run_that_does_not_train_has_empty_losses_and_every_time(tmp_path):
    found = results(tmp_path, [commit(1.0, [update([], [])])])
    assert found["loss_history"].tolist() == []
    assert found["time_history"].tolist() == [1000.0]
    assert math.isnan(found["loss_over_time_history"][0])


@pytest.mark.parametrize("name", ["async_local_sgd", "diloco", "diloco_dynupd"])
def test_keys_mean_what_they_mean_upstream(tmp_path, name):
    """Upstream's own events, told as records, give upstream's own histories."""
    path = GOLDEN / f"stub_{name}_example.json.gz"
    with gzip.open(path, "rt") as file:
        run = json.load(file)
    records, steps = [], 0
    for event in run["events"]:
        if event["type"] == "worker_pgrads":
            updates = [update(event["loss_history"], event["num_local_steps_history"])]
            records.append(commit(event["t"] / 1e3, updates))
            steps = event["ps_num_trained_steps"]
        elif event["type"] == "round":
            updates = [update(each["loss_history"], each["num_local_steps_history"]) for each in event["workers"]]
            records.append(commit(event["end_time"] / 1e3, updates))
            steps = event["ps_num_trained_steps"]
        elif event["type"] == "val":
            records.append(
                Evaluation(event["t"] / 1e3, 0, event["trained_steps"], steps, 0, event["val_loss"], "validation")
            )
    found, upstream = results(tmp_path, records), run["histories_at_done"]
    assert found["num_steps_history"].tolist() == np.cumsum(upstream["num_local_steps_history"]).tolist()
    rest = (
        "time_history",
        "loss_history",
        "loss_over_time_history",
        "val_steps_history",
        "val_time_history",
        "val_loss_history",
    )
    for key in rest:
        assert found[key] == pytest.approx(np.array(upstream[key]), rel=1e-12), key
