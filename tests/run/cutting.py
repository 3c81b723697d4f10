"""Runs that are cut off, as a killed process would be, and gone on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from halos.config.config import load_config
from halos.config.layers import merge
from halos.config.yaml_text import Section, to_yaml
from halos.observers import jsonl as records
from halos.resume.checkpointer import Checkpointer
from halos.run import resuming as resume
from halos.run.cli import main
from halos.run.lifecycle import run
from halos.testing import tiny

ROOT = Path(__file__).parents[2]


PLUGINS = {file.stem: file for file in (*ROOT.glob("plugins/*/halos_*.py"), *ROOT.glob("third_party/*/*.py"))}


NOISY: Section = tiny(
    cluster={"regions": [{"workers": [1.0, 0.7]}, {"workers": [0.4, 0.9]}]},
    network={"bandwidth_gbps": 0.001},
    model={"size": 3, "noise": 0.3, "wire_bytes": 200_000},
    data={"samples": 4096, "validation_samples": 4},
    train={"optimizer": {"name": "sgd", "lr": 0.03, "momentum": 0.9}},
    steps={"base": 4},
    budget={"local_steps": 64},
    evaluate={"every_local_steps": 24},
    observers={"progress": False, "tensorboard": False, "trace": False},
)


DELAYED = {"name": "delayed_nesterov", "lr": 0.7, "beta": 0.5, "buffer": 2}


TRANSFORMER: Section = {
    "model": {"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 2, "wire_bytes": 200_000, "size": None},
    "data": {"samples": 512, "sequence_length": 8},
    "train": {"optimizer": {"name": "adamw", "lr": 0.01}, "clip": 1.0},
    "observers": {"tensorboard": True, "trace": True, "results": True},
}


SHARED: Section = {  # as NOISY's links, but all that goes from one region to the other shares one
    "name": "shared_links",
    "up_gbps": 0.001,
    "inside_gbps": 0.002,
    "jitter_ms": 20.0,
    "changes": [{"time_s": time, "link": "region-0.up", "gbps": gbps} for time, gbps in ((3.0, 0.0), (5.0, 1.0))],
    "changes_repeat_seconds": 20.0,
    "collectives": "hierarchical",
}


Case = tuple[Section, tuple[str, ...]]  # sections, and the plugins they need


CASES: dict[str, Case] = {
    "diloco": ({"policy": {"name": "diloco"}}, ()),
    "async_local_sgd": (
        {"policy": {"name": "async_local_sgd", "outer": DELAYED}, "steps": {"name": "by_speed", "base": 4}},
        (),
    ),
    "async_local_sgd with grace": ({"policy": {"name": "async_local_sgd", "outer": DELAYED, "grace_seconds": 2.0}}, ()),
    "halos": ({"policy": {"name": "halos", "outer": DELAYED, "local": DELAYED, "local_updates": 3}}, ()),
    "halos, keep_local": (
        {"policy": {"name": "halos", "outer": DELAYED, "local": DELAYED, "local_updates": 3, "rebase": "keep_local"}},
        (),
    ),
    "halos, crashes": (
        {
            "policy": {"name": "halos", "outer": DELAYED, "local": DELAYED, "local_updates": 3},
            "faults": {"name": "crashes", "between_failures_hours": 0.008, "to_repair_hours": 0.001},
            "observers": {"trace": True},  # with the jobs that were lost before the cut
        },
        (),
    ),
    "async_local_sgd, shared links": (
        {"policy": {"name": "async_local_sgd", "outer": DELAYED}, "network": SHARED},
        (),
    ),
    "halos, shared links, faults": (
        {
            "policy": {"name": "halos", "outer": DELAYED, "local": DELAYED, "local_updates": 3},
            "network": SHARED,
            "faults": {
                "name": "several",
                "inner_state": "gone",
                "of": [
                    {"name": "crashes", "between_failures_hours": 0.008, "to_repair_hours": 0.001},
                    {"name": "message_loss", "probability": 0.1},
                ],
            },
        },
        (),
    ),
    "streaming_diloco, shared links": (
        {"policy": {"name": "streaming_diloco", "fragments": 3, "pattern": "balanced"}, "network": SHARED},
        ("halos_streaming_diloco",),
    ),
    "one_step_delay": ({"policy": {"name": "one_step_delay"}}, ("halos_one_step_delay",)),
    "one_step_delay by two": ({"policy": {"name": "one_step_delay", "outer_delay": 2}}, ("halos_one_step_delay",)),
    "eager_diloco": ({"policy": {"name": "eager_diloco"}}, ("halos_eager_diloco",)),
    "overlap_local_sgd": ({"policy": {"name": "overlap_local_sgd"}}, ("halos_overlap_local_sgd",)),
    "measured speeds, jitter": (
        {
            "policy": {"name": "async_local_sgd", "outer": DELAYED},
            "steps": {"name": "measured", "base": 4},
            "compute": {"name": "jitter"},
            "weights": {"name": "steps"},
        },
        ("halos_heterogeneous_steps",),
    ),
    "streaming_diloco": (
        {"policy": {"name": "streaming_diloco", "fragments": 3, "pattern": "balanced"}},
        ("halos_streaming_diloco",),
    ),
    "streaming_diloco, eager": (
        {
            "policy": {
                "name": "streaming_diloco",
                "fragments": 3,
                "pattern": "balanced",
                "overlap": "outer_step",
                "alpha": 0.0,
            }
        },
        ("halos_streaming_diloco",),
    ),
    "dilocox": ({"policy": {"name": "dilocox"}}, ("halos_codecs", "halos_one_step_delay", "halos_dilocox")),
    "data_parallel, signs": (
        {"policy": {"name": "data_parallel"}, "codec": {"name": "sign", "error_feedback": True}},
        ("halos_data_parallel", "halos_codecs"),
    ),
    "diloco, centred clipping, one worker lies": (
        {
            "policy": {"name": "diloco"},
            "aggregate": {"name": "centred_clipping"},
            "faults": {"name": "byzantine", "count": 1, "attack": "random"},
        },
        ("halos_robust_aggregation",),
    ),
    "streaming_diloco, EDiT's weights": (
        {
            "policy": {"name": "streaming_diloco", "fragments": 3, "pattern": "balanced"},
            "aggregate": {"name": "edit", "warmup": 2, "threshold": 20.0},
        },
        ("halos_streaming_diloco", "halos_robust_aggregation"),
    ),
    "diloco, sparse chunks": (
        {"policy": {"name": "diloco"}, "codec": {"name": "sparse_chunks", "k": 1024}},
        ("halos_sparseloco",),
    ),
    "a_edit": (
        {
            "policy": {"name": "a_edit", "every_seconds": 3.0, "least_steps": 8},
            "aggregate": {"name": "edit", "by_steps": 0.5, "warmup": 2},
        },
        ("halos_edit", "halos_robust_aggregation"),
    ),
    "gossip": ({"policy": {"name": "gossip"}}, ("halos_gossip",)),
    "gossip, crashes": (
        {
            "policy": {"name": "gossip", "rule": "gasloc", "graph": "ring"},
            "faults": {"name": "crashes", "between_failures_hours": 0.008, "to_repair_hours": 0.001},
        },
        ("halos_gossip",),
    ),
    "sparta": ({"policy": {"name": "sparta", "share": 0.5, "delay": 1}}, ("halos_sparta",)),
    "palsgd": ({"policy": {"name": "palsgd", "probability": 0.4}}, ("halos_palsgd",)),
    "one_step_delay, faults": (
        {
            "policy": {"name": "one_step_delay", "merge": "corrected"},
            "faults": {
                "name": "several",
                "inner_state": "gone",
                "of": [
                    {"name": "crashes", "between_failures_hours": 0.008, "to_repair_hours": 0.001},
                    {"name": "message_loss", "probability": 0.1},
                ],
            },
        },
        ("halos_one_step_delay",),
    ),
    "noloco_gossip": ({"policy": {"name": "noloco_gossip"}}, ("noloco_gossip",)),
    "a transformer, halos": (
        {**TRANSFORMER, "policy": {"name": "halos", "outer": DELAYED, "local": DELAYED, "local_updates": 3}},
        (),
    ),
    "a transformer, low rank": (
        {
            **TRANSFORMER,
            "policy": {"name": "diloco"},
            "codec": {"name": "low_rank", "rank": 2, "error_feedback": True},
        },
        ("halos_codecs",),
    ),
}


def text(name: str = "diloco", **changes: Any) -> str:
    """A case's configuration, as a file."""
    sections, plugins = CASES[name]
    base = merge({**NOISY, "policy": {}, **({"network": {}} if "network" in sections else {})}, sections)
    if base["model"].get("size", 0) is None:
        base["model"] = sections["model"] = {
            key: value for key, value in sections["model"].items() if key not in ("size", "noise")
        }
    return to_yaml(merge(base, {"plugins": list(plugins), **changes}))


def make(tmp_path: Path, config: str, *changes: str, out: str = "run") -> Path:
    """A run of `config`; its folder."""
    (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
    run(*load_config(str(tmp_path / "c.yaml"), [f"out={tmp_path / out}", *changes]))
    return tmp_path / out


def go_on(folder: Path, *changes: str) -> Path:
    run(*resume.load_run(folder, list(changes)))
    return folder


def what_it_left(folder: Path) -> dict[str, Any]:
    """All that a run leaves, to be compared bit by bit; but wall time, and where it was."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    found |= {path.name: path.read_bytes() for path in folder.glob("trace.json")}
    summary = (folder / "summary.json").read_text(encoding="utf-8").splitlines()
    found["summary"] = [line for line in summary if "wall_seconds" not in line]
    for name, tensor in torch.load(folder / "model.pt").items():
        found[f"model: {name}"] = tensor.numpy().tobytes()
    for path in folder.glob("results.pt"):
        for key, history in torch.load(path, weights_only=False).items():
            found[f"results: {key}"] = history.tobytes()
    if any(folder.glob("events.out.tfevents*")):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found[f"scalar: {tag}"] = [(each.wall_time, each.step, repr(each.value)) for each in events.Scalars(tag)]
    return found


class Cutter:
    """Copies a run's folder at some events, as SIGKILL would leave it, with a checkpoint of a little earlier."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: Collection[int], lag: Callable[[], int]) -> None:
        self.events = 0
        self.cuts: list[Path] = []
        self._at, self._lag = at, lag
        self._due: dict[int, list[int]] = {}
        original = Checkpointer.between

        def between(checkpointing: Checkpointer) -> None:
            original(checkpointing)
            if not checkpointing.replaying:
                self._between(checkpointing)

        monkeypatch.setattr(Checkpointer, "between", between)
        monkeypatch.setattr(records, "FLUSH_SECONDS", 0.0)

    def _between(self, checkpointing: Checkpointer) -> None:
        event, folder = checkpointing._simulation.clock.happened, checkpointing._folder.parent
        self.events = event
        if event in self._at:
            checkpointing.checkpoint().save(folder / "checkpoints", keep=1)
            self._due.setdefault(event + self._lag(), []).append(event)
        for cut in self._due.pop(event, ()):
            copy = folder.with_name(f"{folder.name}-cut-{cut}")
            shutil.copytree(folder, copy)
            self.cuts.append(copy)


def cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str, at: Collection[int], lag: int = 0) -> list[Path]:
    """Copies of a run's folder, cut off `lag` events after it wrote a checkpoint at each event `at`."""
    with monkeypatch.context() as patch:
        cutter = Cutter(patch, at, lambda: lag)
        make(tmp_path, config, "checkpoint.every_local_steps=1000000", out="cut")
    return cutter.cuts


def events_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str, out: str = "run") -> tuple[Path, int]:
    """An uninterrupted run, and how many events it has."""
    with monkeypatch.context() as patch:
        cutter = Cutter(patch, (), lambda: 0)
        whole = make(tmp_path, config, "checkpoint.every_local_steps=1000000", out=out)
    return whole, cutter.events


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that says why a run is not resumed; its folder is left as it was."""
    before = bytes_of(folder)
    capsys.readouterr()
    code = main(["--resume", str(folder), *arguments])
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.count("\n") == 1, error
    assert bytes_of(folder) == before
    return error
