"""Configurations that load: with every key, written out and read again, and all that come with halos.

What is said of those that do not is in tests/mistakes, whose tables test_mistakes.py runs row by row.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.config.builder import to_sections
from halos.config.config import load
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
    config, _ = load(str(tmp_path / "full.yaml"))
    assert (config.name, config.seed, config.folder) == ("quickstart", 1234, Path("runs/quickstart"))
    assert (config.train.optimizer.betas, config.policy.local.buffer) == ((0.9, 0.95), 16)


def test_a_config_written_out_loads_as_the_same_config(tmp_path):
    for name, text in (("full.yaml", FULL), ("again.yaml", "")):
        (tmp_path / name).write_text(text)
    config, plugins = load(str(tmp_path / "full.yaml"), ["cluster.tie_break_ms=1e-6", "network.bandwidth_gbps=.inf"])
    written = to_yaml(to_sections(config, plugins))
    (tmp_path / "again.yaml").write_text(written)
    again, plugins = load(str(tmp_path / "again.yaml"))
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
        load(None, ["policy.outer=3", "model={name: sized, parameters: 1}", "policy.name=diloco", "steps=fixed"])
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
