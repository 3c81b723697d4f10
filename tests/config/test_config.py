"""Configurations that load: with every key, written out and read again, and all that come with halos.

What is said of those that do not is in tests/mistakes, whose tables test_mistakes.py runs row by row.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.builder import to_sections
from halos.config.config import load_config
from halos.config.layers import read
from halos.config.yaml_text import to_yaml
from halos.errors import ConfigError

ENV = "num_regions: 2\nnetwork_bandwidths: [[9, 1], [1, 9]]\nworker_speeds: [[1, 1], [1]]\n"

ROOT = Path(__file__).parents[2]
CONFIGS = [
    file
    for file in sorted(ROOT.glob("configs/**/*.yaml"))
    if file.name != "common.yaml" and file.parent.name not in ("env", "utilization")
]

FULL = """
name: quickstart
out: null
seed: 1234
extends: null
plugins: []
cluster:
  env: null
  regions: [{name: us-east, workers: [1.0, 0.5]}]
  bandwidth_gbps: null
  step_time_ms: 238.391
  tie_break_ms: 0.0
network:
  name: matrix
  bandwidth_gbps: 1
  latency_ms: null
compute: {name: constant}
model: {name: gpt_neox, size: pythia-14m}
data:
  {name: text, path: stdlib, sequence_length: 256, validation_samples: 512, shuffle: true, shards: shared, wrap: true}
train:
  batch_size: 16
  micro_batch_size: null
  global_batch_size: null
  optimizer: {name: adamw, lr: 1.0e-3, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 0.1}
  schedule: {name: warmup_cosine, warmup: 30, total: 600, min_ratio: 0.1}
  clip: 1.0
  precision: fp32
  loss_average_steps: 8
steps: {name: by_speed, base: 8, round: ceil}
weights: uniform
policy:
  name: halos
  outer: {name: delayed_nesterov, lr: 0.3, beta: 0.5, buffer: 2}
  local: {name: delayed_nesterov, lr: 3.2, beta: 0.9, buffer: 16}
  local_updates: 32
  merge_weight: 0.25
  server_region: 0
codec: {name: fp32}
faults: {name: none}
budget: {local_steps: 4096}
evaluate: {every_local_steps: 512, sets: {}}
executor: {name: inline, device: auto, threads: 1}
checkpoint: {every_minutes: null, every_local_steps: null, keep: 2}
observers: {progress: true, tensorboard: true, trace: true, records: all}
"""


def test_a_config_with_every_key_loads(tmp_path):
    (tmp_path / "full.yaml").write_text(FULL)
    config, _ = load_config(str(tmp_path / "full.yaml"))
    assert (config.name, config.seed, config.folder) == ("quickstart", 1234, Path("runs/quickstart"))
    assert (config.train.optimizer.betas, config.policy.local.buffer) == ((0.9, 0.95), 16)


def test_a_config_written_out_loads_as_the_same_config(tmp_path):
    for name, text in (("full.yaml", FULL), ("again.yaml", "")):
        (tmp_path / name).write_text(text)
    config, plugins = load_config(
        str(tmp_path / "full.yaml"), ["cluster.tie_break_ms=1e-6", "network.bandwidth_gbps=.inf"]
    )
    written = to_yaml(to_sections(config, plugins))
    (tmp_path / "again.yaml").write_text(written)
    again, plugins = load_config(str(tmp_path / "again.yaml"))
    assert again == config
    assert to_yaml(to_sections(again, plugins)) == written


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_config_that_comes_with_halos_times_a_round_from_anywhere(command, file):
    quiet = "observers={progress: false, tensorboard: false, trace: false}"
    got = command(str(file), "executor.name=timing", "budget.local_steps=1", "out=here", quiet)
    assert (got.code, got.err) == (0, "")


def test_zero_warm_up_and_integers_for_numbers_are_fine(command, tiny_yaml):
    schedule = "train.schedule={name: warmup_cosine, warmup: 0, total: 1e1}"
    got = command(
        "c.yaml", schedule, "cluster.regions=[{workers: [2, 1]}]", "train.optimizer.lr=1", "budget.local_steps=4.0",
        "network.bandwidth_gbps=1", files={"c.yaml": tiny_yaml()},
    )  # fmt: skip
    assert (got.code, got.err) == (0, "")


def test_upstreams_env_yaml_loads_unchanged(command, tiny_yaml):
    env = ENV + "comment: ignored\n"
    cluster = {"env": "env.yaml", "regions": []}
    files = {"conf/c.yaml": tiny_yaml(cluster=cluster, network={"bandwidth_gbps": None}), "conf/env.yaml": env}
    got = command("conf/c.yaml", files=files)
    assert (got.code, got.err) == (0, "")


def test_a_mistake_in_python_names_the_same_key():
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["policy.outer=3", "model={name: sized, parameters: 1}", "policy.name=diloco", "steps=fixed"])
    assert caught.value.key == "policy.outer"


def test_memory_is_looked_at_before_any_of_it_is_taken(command, tiny_yaml, monkeypatch):
    def build(*_: object) -> None:
        raise AssertionError("built before looking")

    monkeypatch.setattr("halos.models.gpt_neox.GPTNeoX.build", build)
    monkeypatch.setattr("halos.data.memory.available", lambda: 16 * 2**30)
    changes = ("cluster.regions=[{workers: [1, 1, 1, 1]}]", "train.optimizer.name=adamw")
    got = command("c.yaml", "model={name: gpt_neox, size: pythia-1b}", *changes, files={"c.yaml": tiny_yaml()})
    assert (got.code, got.made) == (2, set())
    # 4 bytes · 806 M · (2 moments · 4 workers + 4) = 36 GiB
    assert "model: 805,998,592 parameters and 4 workers' optimizer states need at least 36.0 GiB of memory" in got.err
    assert "16.0 GiB are free; take a smaller model or fewer workers, or only time it with" in got.err


PLUGIN = """
from dataclasses import dataclass
from pathlib import Path

from halos import hookimpl
from halos.world.compute import Constant


@dataclass
class Timed(Constant):
    table: Path = Path("table")

    def connect(self, cluster, seed):
        super().connect(cluster, seed)
        assert self.table.read_text() == "times"


@hookimpl
def register_compute_models(register):
    register("timed", Timed)
"""


def test_what_show_config_prints_is_the_same_run_from_any_working_directory(command, tiny_yaml, tmp_path, monkeypatch):
    """Its env file, data, weights, a plugin's file and a file of that plugin's lie beside the config, or in `deep`."""
    top = tiny_yaml(
        extends="deep/base.yaml",
        model={"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 1, "weights": "w.pt"},
        data={"name": "megatron", "path": "pair", "sequence_length": 8, "vocab_size": 64},
        cluster={"env": "env.yaml", "regions": []},
        network={"bandwidth_gbps": None},
        compute={"name": "timed", "table": "times.txt"},
        plugins=["timed.py"],
        evaluate={"sets": {"own": {"name": "text", "path": ["${evaluate.sets.below.path}", "texts"]}}},
        executor={"name": "timing"},
    )
    files = {
        "conf/c.yaml": top,
        "conf/deep/base.yaml": "evaluate: {sets: {below: {name: text, path: corpus.txt}}}\n",
        "conf/deep/corpus.txt": "", "conf/texts/a.txt": "", "conf/w.pt": "", "conf/env.yaml": ENV,
        "conf/pair.bin": "", "conf/pair.idx": "", "conf/times.txt": "times", "conf/timed.py": PLUGIN,
    }  # fmt: skip
    first = command("conf/c.yaml", "--show-config", files=files)
    assert (first.code, first.err) == (0, "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("../conf/c.yaml", "--show-config").out == first.out
    (tmp_path / "shown.yaml").write_text(first.out)
    assert command("../shown.yaml", "--show-config").out == first.out
    section = read(tmp_path / "shown.yaml")
    conf = tmp_path / "conf"
    assert section["data"]["path"] == str(conf / "pair")
    assert section["model"]["weights"] == str(conf / "w.pt")
    assert section["compute"]["table"] == str(conf / "times.txt")
    assert section["plugins"] == [str(conf / "timed.py")]
    assert section["evaluate"]["sets"]["own"]["path"] == [str(conf / "deep/corpus.txt"), str(conf / "texts")]
    assert section["cluster"]["env"] is None and section["cluster"]["bandwidth_gbps"] == [[9.0, 1.0], [1.0, 9.0]]

    (conf / "env.yaml").unlink()  # what it said is known
    timelines = []
    for folder, config in ((tmp_path / "elsewhere", "../shown.yaml"), (tmp_path, "shown.yaml")):
        monkeypatch.chdir(folder)
        got = command(config)
        assert (got.code, got.err) == (0, "")
        written = {path.name: path.read_bytes() for path in (folder / "runs/run").glob("*.jsonl")}
        timelines.append({**written, "config": read(folder / "runs/run/config.yaml")})
    assert timelines[0] == timelines[1] and timelines[0]["updates.jsonl"]
