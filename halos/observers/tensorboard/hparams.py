"""A run as TensorBoard's HParams tab has it: what was chosen, and whether it came to an end.

Every run writes its own session among its curves, so a run is one row of the table, and there are no sub-runs. Which
of the values are the axes of a comparison, and which curves' last points are its results, is for a folder of runs to
say (`axes`); without that the tab finds out for itself what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from halos.observers.experiment import Experiment

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

Value = Union[bool, int, float, str]

KEYS = (  # of the configuration, sections whole
    "policy",
    "steps",
    "weights.name",
    "codec",
    "compute.name",
    "faults.name",
    "network.name",
    "model.name",
    "data.name",
    "train.batch_size",
    "train.optimizer.name",
    "train.optimizer.lr",
    "budget",
    "executor.name",
    "seed",
)
MOST = 60  # of the configuration: a table of more helps nobody
# Curves whose last points are a run's results, in the order of the table's columns.
METRICS = (
    "loss/validation",
    "loss/train",
    "progress/simulated time [hours]",
    "utilization/all workers [%]",
    "traffic/total [MB]",
    "staleness/end to end [versions]",
    "parameter drift/end to end [L2 distance]",
)


def chosen(experiment: Experiment) -> dict[str, Value]:
    """What a run is known by: its labels, as they are called, and before them the main keys of its configuration."""
    config = experiment.config
    values = [pair for key in KEYS for pair in _flat(key, _at(config, key))]
    cluster = experiment.cluster
    sizes = {
        "workers": len(cluster.workers),
        "regions": len(cluster.regions),
        "parameters": experiment.parameters,
    }
    labels = config.get("labels") or {}
    return {**dict(values[:MOST]), **sizes, **{str(key): _plain(value) for key, value in labels.items()}}


def start(experiment: Experiment) -> Summary:
    """Say that a run begins, and what was chosen; on the simulated clock, so at 0."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # type: ignore[import-untyped]

    # Without a name of its own for the trial, it has that of the run: two runs of one configuration are two.
    return hparams_pb(chosen(experiment), trial_id="", start_time_secs=0.0)


def end(finished: bool, now: float) -> Summary:
    """Say that a run is over, at simulated `now`, and whether it came to its end."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]

    status = api_pb2.STATUS_SUCCESS if finished else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info, version=metadata.PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString())
    about = SummaryMetadata(plugin_data=plugin)
    return Summary(
        value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)]
    )


def axes(folder: Path, values: Mapping[str, Sequence[Union[float, str]]], metrics: Sequence[str] = METRICS) -> None:
    """Write into `folder`, below which runs are, what HParams compares: the labels `values` has, and `metrics`.

    In the place of what was said there before. Needs TensorBoard; raises ImportError without it.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams import summary_v2 as hparams
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

    before = list(folder.glob("events.out.tfevents*"))
    domains = []
    for name, several in values.items():
        numbers = sorted({float(value) for value in several if not isinstance(value, str)})  # as sessions have them
        texts = sorted({value for value in several if isinstance(value, str)})
        domain = None if numbers and texts else hparams.Discrete(numbers or texts)  # of one kind of values
        domains.append(hparams.HParam(name, domain))
    summary = hparams.hparams_config_pb(domains, [hparams.Metric(tag) for tag in metrics], time_created_secs=0.0)
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(summary=summary, wall_time=0.0, step=0))
    writer.close()
    for file in before:
        file.unlink()


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _flat(key: str, value: Any) -> Iterator[tuple[str, Value]]:
    """`(a.b, value)` for every single value; lists, and what is not set, are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    elif value is not None and not isinstance(value, (list, tuple)):
        yield key, _plain(value)


def _plain(value: Any) -> Value:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
