"""Configurations that load: with every key, written out and read again, and all that come with halos.

What is said of those that do not is in tests/mistakes, whose tables test_mistakes.py runs row by row.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from halos.config.config import load_config
from halos.config.layers import overrides, read
from halos.config.sections import to_sections
from halos.config.yaml_text import to_yaml
from halos.errors import ConfigError, UserError

ENV = "num_regions: 2\nnetwork_bandwidths: [[9, 1], [1, 9]]\nworker_speeds: [[1, 1], [1]]\n"

ROOT = Path(__file__).parents[2]
CONFIGS = [
    file
    for file in sorted(ROOT.glob("configs/**/*.yaml"))
    if file.name != "common.yaml" and not {"env", "utilization", "sweeps", "papers"} & {*file.relative_to(ROOT).parts}
]

FULL = """
name: quickstart
out: null
seed: 1234
labels: {method: HALoS, speeds: none, H: 8, lr: 1.0e-3, train.clip: 1.0, version: "1.0"}
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
    assert list(config.labels.items()) == [
        ("method", "HALoS"), ("speeds", "none"), ("H", 8), ("lr", 0.001), ("train.clip", 1.0), ("version", "1.0")
    ]  # fmt: skip


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


TEXTS = ["1.10", "007", "0123", "1e3", "yes", "no", "on", "off", "True", "null", "2024-01-01", "1_000", "0x10", "12:30"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_looks_like_something_else_stays_and_its_own_config_says_it_again(
    command, tiny_yaml, tmp_path, text
):
    """The run's name, a region's, an evaluation set's, and paths: in YAML and in key=value."""
    (tmp_path / text).write_text("some words to be evaluated on, and a few more of them")
    own = f"{{name: text, path: [{text}], hold_out: false, sequence_length: 8, validation_samples: 2}}"
    more = f"\nevaluate: {{sets: {{{text}x: {own}}}, every_local_steps: 4}}\n"
    changes = [
        "data.vocab_size=256",
        f"cluster.regions=[{{name: {text}, workers: [1]}}]",
        f"evaluate.sets={{'{text}': {own}}}",
    ]
    files = {"c.yaml": tiny_yaml() + more, "named.yaml": f"extends: c.yaml\nname: {text}\n"}
    for arguments in (("named.yaml", *changes), ("c.yaml", f"name={text}", *changes, "out=runs/${name}-again")):
        got = command(*arguments, files=files)
        assert (got.code, got.err) == (0, "")
    for folder, config in ((text, "named.yaml"), (f"{text}-again", "c.yaml")):
        written = tmp_path / "runs" / folder / "config.yaml"
        assert written.exists(), config
        section = read(written)
        assert section["name"] == section["cluster"]["regions"][0]["name"] == text
        assert section["evaluate"]["sets"][text]["path"] == [str(tmp_path / text)]
        assert command(str(written), "--show-config").out == written.read_text(encoding="utf-8")


def test_an_unquoted_key_is_the_text_that_is_written(tmp_path):
    config, _ = load_config(None, [
        "model={name: sized, parameters: 1}", "policy=diloco", "steps=fixed", "budget.local_steps=1",
        "cluster.regions=[{workers: [1]}]", "evaluate.sets={1.10: {name: synthetic}, no: synthetic, 007: synthetic}",
        "evaluate.sets.0x1={name: synthetic}",
    ])  # fmt: skip
    assert list(config.evaluate.sets) == ["1.10", "no", "007", "0x1"]


LOWER = """
steps: {name: fixed, base: 16}
data: {name: text, path: [a, b], sequence_length: 32, validation_samples: 4}
policy: {name: halos, local_updates: 3, outer: {name: nesterov, lr: 0.5, momentum: 0.25}}
evaluate: {sets: {own: {name: synthetic, samples: 900, sequence_length: 16}}}
train: {optimizer: {name: sgd, lr: 0.25, momentum: 0.5}}
faults: {name: crashes, at: [{worker: 1, at_seconds: 3, seconds: 1}], detection_seconds: 2}
model: {name: sized, parameters: 10}
budget: {local_steps: 100}
cluster: {regions: [{workers: [1]}]}
"""
CHANGED = [  # key=value; what is kept; what is said to be dropped
    ("steps.name=by_speed", {"steps.base": 16}, []),
    ("data.name=synthetic", {"data.sequence_length": 32, "data.validation_samples": 4}, [
        "data: dropped path, written of text: synthetic has no such key"]),
    ("data={name: tokens, path: x.npy}", {"data.sequence_length": 32, "data.validation_samples": 4}, []),
    ("data.name=tokens data.path=x.npy", {"data.sequence_length": 32}, []),
    ("policy=diloco", {"policy.outer.lr": 0.5, "policy.outer.momentum": 0.25}, [
        "policy: dropped local_updates, written of halos: diloco has no such key"]),
    ("policy.name=async_local_sgd policy.outer.name=sgd", {"policy.outer.lr": 0.5}, [
        "policy: dropped local_updates, written of halos: async_local_sgd has no such key",
        "policy.outer: dropped momentum, written of nesterov: sgd has no such key"]),
    ("policy.outer=adam", {"policy.outer.lr": 0.5, "policy.local_updates": 3}, [
        "policy.outer: dropped momentum, written of nesterov: adam has no such key"]),
    ("evaluate.sets.own.name=text", {"evaluate.sets.own.sequence_length": 16}, [
        "evaluate.sets.own: dropped samples, written of synthetic: text has no such key"]),
    ("evaluate.sets={own: {name: tokens, path: x}}", {"evaluate.sets.own.sequence_length": 16}, [
        "evaluate.sets.own: dropped samples, written of synthetic: tokens has no such key"]),
    ("train.optimizer.name=adamw", {"train.optimizer.lr": 0.25}, [
        "train.optimizer: dropped momentum, written of sgd: adamw has no such key"]),
    ("faults.name=links", {"faults.detection_seconds": 2.0}, [
        "faults: dropped at, written of crashes: faults.at[0].worker: no such key; there are: …"]),
]  # fmt: skip


def split(change: str) -> list[str]:
    """`a=1 b=2`, values with spaces in braces left whole."""
    return re.split(r" (?=[\w.]+=)", change)


@pytest.mark.parametrize("layer", ["overrides", "file", "list of files"])
@pytest.mark.parametrize(("change", "kept", "dropped"), CHANGED, ids=[change for change, _, _ in CHANGED])
def test_another_component_keeps_what_it_has_as_well_in_every_layer(tmp_path, layer, change, kept, dropped):
    (tmp_path / "lower.yaml").write_text(LOWER)
    if layer == "overrides":
        config, plugins = load_config(str(tmp_path / "lower.yaml"), split(change))
    else:
        (tmp_path / "upper.yaml").write_text(to_yaml(overrides(split(change))))
        below = "[lower.yaml, upper.yaml]" if layer == "list of files" else "lower.yaml"
        more = "" if layer == "list of files" else (tmp_path / "upper.yaml").read_text()
        (tmp_path / "c.yaml").write_text(f"extends: {below}\n{more}")
        config, plugins = load_config(str(tmp_path / "c.yaml"))
    section = to_sections(config, plugins)
    for key, value in kept.items():
        found = section
        for part in key.split("."):
            found = found[part]
        assert found == value, key
    assert len(config.dropped) == len(dropped)
    for line, said in zip(config.dropped, dropped, strict=True):
        assert line.startswith(said.removesuffix("…"))


def test_what_is_dropped_is_one_line_on_stderr_once_the_run_begins(command, tiny_yaml, caplog):
    files = {"c.yaml": tiny_yaml()}
    said = "data: dropped samples, written of synthetic: text has no such key"
    changes = ("data={name: text, path: c.yaml, validation_samples: 1}", "steps.name=by_speed")
    assert command("c.yaml", *changes, files=files).code == 0
    assert caplog.messages == [said]
    caplog.clear()
    assert command("c.yaml", *changes, "--show-config").code == 0
    assert caplog.messages == [said]
    caplog.clear()
    assert command("c.yaml", *changes, "name=other", "data.path=nowhere").code == 2
    assert caplog.messages == []  # its own line says enough
    assert command("runs/run/config.yaml", "name=again").code == 0
    assert caplog.messages == []


def test_references_see_defaults_of_sections_and_of_components(command, tiny_yaml):
    """Values from the dataclasses: seed 1234, micro_batch_size null, synthetic's wrap; sgd's lr is in the file: 1.0."""
    name = "r-${seed}-${train.micro_batch_size}-${data.wrap}-${policy.outer.lr}-${policy.outer.name}-${codec.name}"
    regions = "-${cluster.regions[0].name}-${evaluate.sets.own.shards}-${steps.round}"
    changes = ["evaluate.sets={own: synthetic}", "cluster.regions=[{workers: [1]}]", "steps.name=by_speed"]
    got = command("c.yaml", f"name={name}{regions}", *changes, "--show-config", files={"c.yaml": tiny_yaml()})
    assert (got.code, got.err) == (0, "")
    assert "\nname: r-1234-null-true-1.0-sgd-fp32--shared-ceil\n" in got.out


def test_a_default_referred_to_as_a_whole_is_that_section(tmp_path):
    (tmp_path / "c.yaml").write_text(LOWER + "checkpoint: {keep: '${train.batch_size}'}\nweights: '${codec}'\n")
    config, _ = load_config(str(tmp_path / "c.yaml"), ["weights=uniform", "seed=${budget.local_steps}"])
    assert (config.checkpoint.keep, config.seed) == (16, 100)
    with pytest.raises(ConfigError, match=r"^name: Interpolation key 'train\.nothing' not found$"):
        load_config(str(tmp_path / "c.yaml"), ["weights=uniform", "name=${train.nothing}"])


def test_an_escaped_reference_is_written_back_so_that_its_own_config_is_the_same_run(command, tiny_yaml, tmp_path):
    (tmp_path / "${b}").write_text("words that nobody has read " * 9)
    own = "{name: text, path: '\\${b}', hold_out: false, sequence_length: 8, validation_samples: 2}"
    got = command(
        "c.yaml",
        r"name=\${x}${seed}",
        "data.vocab_size=256",
        f"evaluate.sets={{own: {own}}}",
        files={"c.yaml": tiny_yaml()},
    )
    assert (got.code, got.err) == (0, "")
    written = tmp_path / "runs/${x}1234/config.yaml"
    again = command("runs/${x}1234/config.yaml", "--show-config")
    assert (again.err, again.out) == ("", written.read_text(encoding="utf-8"))
    assert command("runs/${x}1234/config.yaml", "out=other").code == 0
    for record in ("updates.jsonl", "evaluations.jsonl"):
        assert (tmp_path / "other" / record).read_bytes() == written.with_name(record).read_bytes()


def test_a_tilde_is_the_home_folder_in_every_path(command, tiny_yaml, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    files = {
        "home/c.yaml": tiny_yaml(cluster={"env": "~/env.yaml", "regions": []}, network={"bandwidth_gbps": None}),
        "home/env.yaml": ENV, "home/a.txt": "words " * 99, "home/timed.py": PLUGIN, "home/times.txt": "times",
        "home/heard.py": "from halos import hookimpl\n\n@hookimpl\ndef on_finish(summary): print('heard')\n",
    }  # fmt: skip
    small = "hold_out: false, sequence_length: 8, validation_samples: 4"
    sets = f"evaluate.sets={{a: {{name: text, path: ~/a.txt, {small}}}, b: {{name: text, path: [~/a.txt], {small}}}}}"
    changes = ["data={name: text, path: ~/a.txt, sequence_length: 8, validation_samples: 4}", sets, "out=~/runs/one"]
    changes += ["plugins=[~/timed.py]", "compute={name: timed, table: ~/times.txt}", "checkpoint.every_local_steps=4"]
    got = command("~/c.yaml", *changes, "--plugin=~/heard.py", files=files)
    assert (got.code, got.err) == (0, "") and "heard" in got.out
    section = read(home / "runs/one/config.yaml")
    assert section["out"] == str(home / "runs/one")
    assert section["plugins"] == [str(home / "timed.py"), str(home / "heard.py")]
    assert section["data"]["path"] == section["evaluate"]["sets"]["a"]["path"] == str(home / "a.txt")
    assert section["compute"]["table"] == str(home / "times.txt")
    assert command("--resume=~/runs/one", "budget.local_steps=16", "data.path=~/a.txt").code == 0
    assert "home/timed.py" in command("--list-plugins", "--plugin=~/timed.py").out
    assert not (tmp_path / "~").exists()
    model = "model={name: gpt_neox, hidden_size: 8, layers: 1, heads: 1, weights: ~/nowhere}"
    refused = command("~/c.yaml", model, "name=other")
    assert refused.err == "error: model.weights: weights home/nowhere: no such file or folder (nothing is downloaded)\n"


def test_a_folder_that_is_not_called_in_utf8_works_where_its_name_is_not_kept_and_is_one_line_elsewhere(
    command, tiny_yaml, tmp_path
):
    folder = os.fsdecode(b"b\xffd")
    config = f"{folder}/c.yaml"
    files = {
        config: tiny_yaml(), f"{folder}/a.txt": "words", f"{folder}/env.yaml": ENV,
        f"{folder}/p.py": "from halos import hookimpl\n\n@hookimpl\ndef on_finish(summary): pass\n",
    }  # fmt: skip
    assert command(config, files=files).code == 0
    for change, key in (
        ("data: {name: text, path: a.txt}", "data.path"),
        ("evaluate: {sets: {a: {name: text, path: [a.txt]}}}", "evaluate.sets.a.path[0]"),
        ("cluster: {env: env.yaml, regions: []}", "cluster.env"),
        ("model: {name: gpt_neox, weights: a.txt}", "model.weights"),
        ("plugins: [p.py]", "plugins[0]"),
    ):
        (tmp_path / folder / "d.yaml").write_text(f"extends: c.yaml\nname: other\n{change}\n")
        got = command(f"{folder}/d.yaml")
        assert (got.code, got.made) == (2, set())
        assert got.err.startswith(f"error: {key}: '") and got.err.count("\n") == 1
        assert got.err.endswith("is no UTF-8, and config.yaml could not hold it; rename what is so called\n")
    for arguments in ([config, f"out={folder}/o"], [config, f"--plugin={folder}/p.py", "name=o"]):
        got = command(*arguments)
        assert (got.code, got.made, got.err.count("\n")) == (2, set(), 1)


def test_a_grid_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("config: a.yaml\naxes: {seed: [1, 2]}\n")
    with pytest.raises(UserError, match=r"grid\.yaml is a grid of runs, .*: python -m halos\.sweep .*grid\.yaml$"):
        load_config(str(tmp_path / "grid.yaml"))
