"""A user's mistake gets one line naming the full key, the value and what would be right; and a full config loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from halos.builder import to_sections
from halos.config import load
from halos.errors import ConfigError
from halos.layers import to_yaml
from halos.plugins import KINDS, Plugins

ENV = "num_regions: 2\nnetwork_bandwidths: [[9, 1], [1, 9]]\nworker_speeds: [[1, 1], [1]]\n"
IN_ENV = "cluster={env: env.yaml, regions: []}"
NEOX = "model={name: gpt_neox, hidden_size: 8, layers: 1, heads: 1}"
TIMING = "executor.name=timing"

ROOT = Path(__file__).parents[1]
CONFIGS = [
    file
    for file in sorted(ROOT.glob("configs/**/*.yaml"))
    if file.name != "common.yaml" and file.parent.name not in ("env", "utilization")
]

# key=value on top of a config that works; below it, what the error's one line says (…: and so on)
MISTAKES = """
# unknown keys
polcy=diloco
    polcy: no such key; there are: …
policy.outr=sgd
    policy.outr: no such key; there are: outer (did you mean 'outer'?)
train.optimizer.lrr=1
    train.optimizer.lrr: no such key; there are: betas, eps, lr, momentum, name, weight_decay (did you mean 'lr'?)
cluster.regions=[{worker: [1]}]
    cluster.regions[0].worker: no such key; there are: name, workers (did you mean 'workers'?)
evaluate.sets={c: {name: synthetic, size: 1}}
    evaluate.sets.c.size: no such key; there are: branching, concentration, hold_out, samples, sequence_length, …
# wrong types
seed=abc
    seed: 'abc' is not an integer
seed=1.5
    seed: 1.5 is not an integer
seed=1e300
    seed: 1e+300 is too large; an integer is below 2^63
name={}
    name: {} is not a text
name=
    name: None is not a text
out=[a]
    out: ['a'] is not a text or null
plugins=mine.py
    plugins: 'mine.py' is not a list of files or modules
train=3
    train: 3 is not a section of keys and values
train.batch_size=true
    train.batch_size: True is not an integer
train.clip=much
    train.clip: 'much' is not a number
train.optimizer.betas=0.9
    train.optimizer.betas: 0.9 is not a list of 2, each a number
train.optimizer.betas=[0.9]
    train.optimizer.betas: [0.9] is not a list of 2, each a number
train.global_batch_size=[]
    train.global_batch_size: [] is not an integer or null
cluster.step_time_ms=fast
    cluster.step_time_ms: 'fast' is not a number
cluster.regions=3
    cluster.regions: 3 is not a list, each a section of keys and values
cluster.regions=[3]
    cluster.regions[0]: 3 is not a section of keys and values
cluster.regions=[{workers: 3}]
    cluster.regions[0].workers: 3 is not a list, each a number
cluster.regions=[{workers: [a]}]
    cluster.regions[0].workers[0]: 'a' is not a number
observers.progress=maybe
    observers.progress: 'maybe' is not true or false
evaluate.sets=[a]
    evaluate.sets: ['a'] is not a section, each value a data source: {name: …}, one of …
policy=3
    policy: 3 is not a policy: {name: …}, one of …
policy=null
    policy: None is not a policy: {name: …}, one of …
policy.name=3
    policy.name: 3 is not the name of a policy: {name: …}, one of …
executor=[inline]
    executor: ['inline'] is not an executor: {name: …}, one of …
# unknown components
evaluate.sets.code=txt
    evaluate.sets.code.name: 'txt' is not installed; installed: …
# the cluster and its network
cluster.regions=[]
    cluster.regions: empty; name an `env` file or write regions: [{name: …, workers: [1.0, …]}]
cluster.regions=[{name: a}]
    cluster.regions: no region has a worker
cluster.regions=[{workers: [1.0, .nan]}]
    cluster.regions[0].workers[1]: nan is not a positive, finite speed
cluster.regions=[{workers: [0]}]
    cluster.regions[0].workers[0]: 0.0 is not a positive, finite speed
cluster.regions=[{workers: [-1]}]
    cluster.regions[0].workers[0]: -1.0 is not a positive, finite speed
cluster.regions=[{name: a, workers: [1]}, {name: a}]
    cluster.regions: 'a' is not a region name used once
cluster.env=env.yaml
    cluster.regions: given beside env; a cluster comes from one of the two
cluster={env: no.yaml, regions: []}
    cluster.env: no.yaml does not exist
cluster={env: ., regions: []}
    cluster.env: . cannot be read: [Errno 21] Is a directory: '.'
cluster.step_time_ms=0
    cluster.step_time_ms: 0.0 is not a positive number of milliseconds
cluster.step_time_ms=.nan
    cluster.step_time_ms: nan is not a positive number of milliseconds
cluster.tie_break_ms=-1
    cluster.tie_break_ms: -1.0 is not zero or a positive number of milliseconds
network.bandwidth_gbps=.nan
    network.bandwidth_gbps[0][0]: nan is not a positive number
network.bandwidth_gbps=0
    network.bandwidth_gbps[0][0]: 0.0 is not a positive number
network.bandwidth_gbps=-1
    network.bandwidth_gbps[0][0]: -1.0 is not a positive number
network.bandwidth_gbps=fast
    network.bandwidth_gbps: 'fast' is not one number or 1 rows of 1 numbers, [from][to]
network.bandwidth_gbps=null
    network.bandwidth_gbps: missing; give 1 x 1 numbers [from][to] in Gbit/s, or one
network.bandwidth_gbps=[[1, 2], [3, 4]]
    network.bandwidth_gbps: has shape 2 x 2, but there are 1 regions; give one number or 1 rows of 1 numbers, …
network.latency_ms=-1
    network.latency_ms[0][0]: -1.0 is not zero or a positive number
# training
train.batch_size=0
    train.batch_size: 0 is not a positive number of samples
train.micro_batch_size=3
    train.micro_batch_size: 3 does not divide batch_size 1
train.optimizer.betas=[0.9, 1.0]
    train.optimizer.betas: (0.9, 1.0) is not two numbers in [0, 1)
train.optimizer.lr=.nan
    train.optimizer.lr: nan is not zero or a positive, finite number
train.optimizer.name=lion
    train.optimizer.name: 'lion' is not one of adamw, sgd
train.schedule={name: warmup_cosine, warmup: 9, total: 5}
    train.schedule.warmup: 9 is not at most total (5)
train.schedule=linear
    train.schedule.name: 'linear' is not one of warmup_cosine, constant
train.clip=-1
    train.clip: -1.0 is not zero or a positive, finite number
train.precision=fp8
    train.precision: 'fp8' is not one of fp32, bf16, fp16
steps.base=0
    steps.base: 0 is not a positive number of steps
steps={name: by_speed, round: nearest}
    steps.round: 'nearest' is not one of ceil, floor
# budget and evaluation
budget.local_steps=null
    budget: empty; give local_steps, tokens, simulated_hours or target_loss
budget.local_steps=0
    budget.local_steps: 0 is not a positive number
budget.local_steps=-5
    budget.local_steps: -5 is not a positive number
budget.simulated_hours=.nan
    budget.simulated_hours: nan is not a positive number
budget.target_loss=1.0
    evaluate.every_local_steps: missing; budget.target_loss is only seen by evaluating
evaluate.every_local_steps=0
    evaluate.every_local_steps: 0 is not a positive number of steps, or null
evaluate.sets.validation=synthetic
    evaluate.sets.validation: is the name of the data's own held-out tail; choose another
evaluate.sets={code: {name: synthetic, vocab_size: 99}}
    evaluate.sets.code: has 99 different tokens, the data only 64
# policies and merge rules
policy={name: halos, merge_weight: 1.5}
    policy.merge_weight: 1.5 is not in [0, 1]
policy={name: halos, merge_weight: .nan}
    policy.merge_weight: nan is not in [0, 1]
policy={name: halos, local_updates: 0}
    policy.local_updates: 0 is not a positive number of updates
policy={name: halos, local_servers: 2}
    policy.workers_per_server: give both local_servers and workers_per_server, or neither
policy={name: halos, local_servers: 3, workers_per_server: 2}
    policy.workers_per_server: 3 local servers of 2 workers for 2 workers
policy={name: halos, server_region: 1}
    policy.server_region: 1 is not a region, 0 to 0
policy={name: async_local_sgd, server_region: -1}
    policy.server_region: -1 is not a region, 0 to 0
policy={name: async_local_sgd, grace_seconds: -1}
    policy.grace_seconds: -1.0 is not zero or positive seconds
policy.outer={name: nesterov, momentum: 1}
    policy.outer.momentum: 1.0 is not in [0, 1)
policy.outer.lr=-1
    policy.outer.lr: -1.0 is not zero or a positive, finite number
# models and data
model={name: gpt_neox}
    model.hidden_size: needed when there is no size (one of …
model={name: gpt_neox, size: pythia-70}
    model.size: 'pythia-70' is not one of …
model={name: gpt_neox, size: pythia-14m, heads: 3}
    model.heads: 3 is not a divisor of hidden_size (128)
model={name: gpt_neox, size: pythia-14m, vocab_size: 9}
    model.vocab_size: 9 is not enough for the data's 64 tokens (leave it out to take the data's)
model={name: gpt_neox, size: pythia-14m, weights: no.pt}
    model.weights: weights no.pt: no such file or folder (nothing is downloaded)
model={name: sized, parameters: 40}
    model: a model of name 'sized' has a size (40 parameters) but cannot be trained; use executor.name=timing, …
model.optimum=[1, 2, 3]
    model.optimum: [1.0, 2.0, 3.0] is not a number or a list of 2
data={name: text, path: nowhere}
    data.path: 'nowhere' does not exist
data={name: text, path: ''}
    data.path: '' is not a file, a folder, 'stdlib', or a list of these
data={name: text, path: env.yaml}
    data.path: 'env.yaml' gives 82 bytes (1 files); 513 samples of sequence_length 256, …
data={name: tokens}
    data.path: missing; it must be a text
data={name: tokens, path: nowhere.npy}
    data.path: 'nowhere.npy' does not exist
data={name: tokens, path: nine.npy, sequence_length: 16}
    data.path: 'nine.npy' has rows of 9 tokens; sequence_length 16 takes 17
data={name: megatron, path: nowhere}
    data.path: 'nowhere.idx' does not exist
data.validation_samples=64
    data.samples: 64 is not at least 65 (see validation_samples)
data.sequence_length=0
    data.sequence_length: 0 is not a positive number of tokens
data.shards=by_sauce
    data.shards: 'by_sauce' is not one of shared, iid, by_region, by_source
data.shards=by_source
    data.shards: by_source, but this corpus does not say which source its samples are from
evaluate.sets={code: {name: text, path: nowhere}}
    evaluate.sets.code.path: 'nowhere' does not exist
# the machine
executor.device=gpu
    executor.device: 'gpu' cannot be used here (Expected one of cpu, cuda, ipu, xpu, mkldnn, opengl, opencl, ideep, …
executor.device=meta
    executor.device: 'meta' cannot be used here (Tensor.item() cannot be called on meta tensors); give auto, cpu, …
executor.threads=0
    executor.threads: 0 is not a positive number of threads
model={name: sized, parameters: 405e9}
    model: 405,000,000,000 parameters and 2 workers' optimizer states need at least …
model={name: gpt_neox, hidden_size: 1e6, layers: 1000, heads: 1}
    model: 12,000,013,130,000,000 parameters and 2 workers' optimizer states need at least …
model={name: gpt_neox, hidden_size: 8, layers: 1e9, heads: 1}
    model.layers: 1000000000 is not at most 10,000
model={name: quadratic, size: 1e12}
    model: 1,000,000,000,000 parameters and 2 workers' optimizer states need at least …
data.samples=1e12
    data: needs more memory than there is: Unable to allocate 16.4 TiB for an array with shape (1000000000000, …
# the run itself
name=a/b
    name: 'a/b' is not the name of a folder (no slashes); `out` takes a path
name=..
    name: '..' is not the name of a folder (no slashes); `out` takes a path
seed=-1
    seed: -1 is not a number from 0 to 2^63 - 1
observers.records=some
    observers.records: 'some' is not one of all, commits, none
checkpoint.every_minutes=0
    checkpoint.every_minutes: 0.0 is not a positive number, or null
checkpoint.every_local_steps=-5
    checkpoint.every_local_steps: -5 is not a positive number, or null
checkpoint.keep=0
    checkpoint.keep: 0 is not a positive number of checkpoints
faults={samples: some}
    faults.samples: 'some' is not one of lost, again
out=env.yaml
    out: env.yaml cannot be the run's folder: Not a directory
out=env.yaml/deep
    out: env.yaml/deep cannot be the run's folder: Not a directory
out=used
    out: used exists already and is not empty; choose another name=… or out=…, or delete it
out=/proc/nowhere/deep
    out: /proc/nowhere/deep cannot be the run's folder: No such file or directory
# overrides themselves
seed
    'seed' is not key=value (for example budget.local_steps=512)
=3
    '=3' is not key=value (for example budget.local_steps=512)
a..b=3
    'a..b=3' is not key=value (for example budget.local_steps=512)
seed=[1
    seed: '[1' is not valid YAML: line …
seed=${nowhere}
    seed: Interpolation key 'nowhere' not found
cluster.regions[0].workers=[1]
    cluster.regions[0].workers: a list is replaced as a whole: cluster.regions=[…]
extends=env.yaml
    extends: only a file extends others; write it there, or give that file as CONFIG
# the command line
--nonsense
    unrecognized arguments: --nonsense; see: python -m halos.run --help
--plugin
    argument --plugin: expected one argument; see: python -m halos.run --help
"""

# the same for whole command lines, and the files they need
MORE: list[tuple[list[str], dict[str, str], str]] = [
    ([], {}, "no configuration given; try: python -m halos.run configs/quickstart.yaml"),
    (["no.yaml"], {}, "no.yaml does not exist"),
    (["."], {}, ". cannot be read: Is a directory"),
    (["seed=3"], {}, "'seed=3' is no file; the configuration comes first, try: python -m halos.run …"),
    (["c.yaml"], {"c.yaml": "a: [1"}, "c.yaml is not valid YAML: line …"),
    (["c.yaml"], {"c.yaml": "a: 1\na: 2"}, "c.yaml is not valid YAML: line 2, column 1: found duplicate key a"),
    (["c.yaml"], {"c.yaml": "a: ${b"}, "c.yaml is not valid YAML: no viable alternative at input '${b'"),
    (["c.yaml"], {"c.yaml": "\0"}, "c.yaml is not valid YAML: unacceptable character #x0000: …"),
    (["c.yaml"], {"c.yaml": "halos"}, "c.yaml is not a mapping of keys to values"),
    (["c.yaml"], {"c.yaml": "- name: run"}, "c.yaml is not a mapping of keys to values"),
    (["c.yaml"], {"c.yaml": "42"}, "c.yaml is not a mapping of keys to values"),
    (["c.yaml"], {"c.yaml": "1: 2"}, "c.yaml is not a mapping of keys to values"),
    (["c.yaml"], {"c.yaml": ""}, "model: missing; it must be a model: {name: …}, one of …"),
    (["c.yaml"], {"c.yaml": "extends: c.yaml"}, "extends: c.yaml extends itself"),
    (["c.yaml"], {"c.yaml": "extends: [d.yaml]", "d.yaml": "extends: c.yaml"}, "extends: c.yaml extends itself"),
    (["c.yaml"], {"c.yaml": "extends: d.yaml"}, "extends: d.yaml does not exist (it is named in c.yaml, …"),
    (["c.yaml"], {"c.yaml": "extends: ."}, "extends: . is not a file (it is named in c.yaml, …"),
    (["c.yaml"], {"c.yaml": "extends: {a: 1}"}, "extends: {'a': 1} in c.yaml is not the path of a file"),
    (["c.yaml"], {"c.yaml": "extends: d.yaml", "d.yaml": "x: ["}, "d.yaml is not valid YAML: line …"),
    (["tiny.yaml", "seed=1\nname: x"], {}, "seed: '1\\nname: x' is more than one value"),
    (["tiny.yaml", "seed=" + 1000 * "9"], {}, f"seed: {60 * '9'}… (1000 characters) is too large; …"),
    (["tiny.yaml", "train.clip=" + 1000 * "9"], {}, f"train.clip: {60 * '9'}… (1000 characters) is too large …"),
    (["tiny.yaml", "name=" + 300 * "x"], {}, "out: runs/xxxxxxxxxxxxxxx…"),
    (
        ["tiny.yaml", "cluster.regions.0.workers=[1]"],
        {},
        "cluster.regions: {'0': {'workers': [1]}} is not a list, each a section of keys and values; it is replaced …",
    ),
    (
        ["tiny.yaml", "budget={local_steps: null, target_loss: 1}", "evaluate.every_local_steps=2", TIMING],
        {},
        "budget: holds only a target_loss, but this executor trains nothing that could reach it; give local_steps, …",
    ),
    (
        ["tiny.yaml", "budget.target_loss=1", "evaluate.every_local_steps=2", "data.validation_samples=0"],
        {},
        "budget.target_loss: is a validation loss, but data.validation_samples is 0",
    ),
    (
        ["tiny.yaml", TIMING, "data={name: tokens, path: no.npy}", "model={name: gpt_neox, hidden_size: 8, layers: 1}"],
        {},
        "model.heads: needed when there is no size …",
    ),
    (
        ["tiny.yaml", TIMING, "data={name: tokens, path: no.npy}", NEOX, "model.size=null"],
        {},
        "model.vocab_size: needed: neither the data nor a size says how many tokens there are",
    ),
    (
        ["tiny.yaml", IN_ENV, "network.bandwidth_gbps=[[1]]"],
        {},
        "network.bandwidth_gbps: has shape 1 x 1, but there are 2 regions; give one number or 2 rows of 2 numbers, …",
    ),
    (
        ["tiny.yaml", IN_ENV, "policy={name: halos, local_servers: 1, workers_per_server: 3}"],
        {},
        "policy.workers_per_server: group 0 (workers 0 to 2) lies in regions 0 to 1; a local server's workers share …",
    ),
    (["tiny.yaml", IN_ENV, "policy={name: halos, server_region: 2}"], {}, "policy.server_region: 2 is not a region, …"),
]

# named sections, and what they choose
NAMED = {
    "policy": "policy",
    "policy.outer": "merge rule",
    "network": "network model",
    "steps": "step allocation",
    "weights": "contribution weights",
    "compute": "compute model",
    "codec": "codec",
    "faults": "fault model",
    "model": "model",
    "data": "data source",
    "executor": "executor",
}

# what the environment file holds, and the line
ENVS = {
    "3": "cluster.env: env.yaml is no mapping with num_regions, network_bandwidths, worker_speeds",
    "a: [": "cluster.env: env.yaml cannot be read: while parsing …",
    ENV.replace("num_regions", "regions"): "cluster.env: env.yaml has no key 'num_regions'",
    ENV.replace("2", "two"): "cluster.env: env.yaml: num_regions is 'two', not a positive integer",
    ENV.replace("2", "3"): "cluster.env: env.yaml: worker_speeds has 2 rows for 3 regions",
    ENV.replace("[1]]", "[.nan]]"): "cluster.env: env.yaml: worker_speeds[1][0] is nan, not a positive, finite number",
    ENV.replace("[1]]", "[0]]"): "cluster.env: env.yaml: worker_speeds[1][0] is 0, not a positive, finite number",
    ENV.replace("9, 1", "9, -1"): "cluster.env: env.yaml: network_bandwidths[0][1] is -1, not a positive, finite …",
    ENV.replace("9, 1", "9"): "cluster.env: env.yaml: network_bandwidths has 2 rows of 1/2 numbers, not 2 rows of 2",
    ENV.replace("[[9, 1], [1, 9]]", "7"): "cluster.env: env.yaml: network_bandwidths is not a list of lists",
    ENV.replace("[[1, 1], [1]]", "[[], []]"): "cluster.regions: no region has a worker",
}  # fmt: skip


@pytest.fixture
def mistake(command, tiny_yaml, tmp_path):
    """Run a command that must fail as a user's mistake does; its one line."""
    np.save(tmp_path / "nine.npy", np.zeros((99, 9), np.uint16))

    def answer(*arguments: str, files: dict[str, str] | None = None) -> str:
        given = {"tiny.yaml": tiny_yaml(), "env.yaml": ENV, "used/file": "", **(files or {})}
        got = command(*arguments, files=given)
        assert (got.code, got.made, got.out) == (2, set(), "")
        assert got.err.startswith("error: ") and got.err.endswith("\n") and got.err.count("\n") == 1
        return got.err

    return answer


def says(line: str, message: str) -> bool:
    """Whether `line` is the error `message`, or, if that ends in …, begins with it."""
    expected = f"error: {message}"
    return line.startswith(expected[:-1].rstrip()) if expected.endswith("…") else line == expected + "\n"


def table(text: str) -> list[tuple[str, str]]:
    lines = [line.strip() for line in text.strip().splitlines() if not line.startswith("#")]
    return list(zip(lines[::2], lines[1::2], strict=True))


@pytest.mark.parametrize(("change", "message"), table(MISTAKES))
def test_a_mistake_is_one_line_with_key_value_and_expectation(mistake, change, message):
    line = mistake("tiny.yaml", change)
    assert says(line, message), line


@pytest.mark.parametrize(("arguments", "files", "message"), MORE, ids=[message for *_, message in MORE])
def test_so_is_one_in_a_file_or_between_several_keys(mistake, arguments, files, message):
    line = mistake(*arguments, files=files)
    assert says(line, message), line


@pytest.mark.parametrize("env", ENVS, ids=list(ENVS.values()))
def test_so_is_one_in_an_environment_file(mistake, env):
    line = mistake("tiny.yaml", IN_ENV, "network.bandwidth_gbps=null", files={"env.yaml": env})
    assert says(line, ENVS[env]), line


@pytest.mark.parametrize(("key", "kind"), NAMED.items())
def test_an_unknown_component_is_told_what_there_is_and_what_was_likely_meant(mistake, key, kind):
    known = sorted(Plugins().components[kind])
    typo = known[0] + "x"
    expected = f"{key}.name: '{typo}' is not installed; installed: {', '.join(known)} (did you mean '{known[0]}'?)"
    assert says(mistake("tiny.yaml", f"{key}.name={typo}"), expected)


def test_that_holds_for_every_kind_of_component():
    assert set(NAMED.values()) == set(KINDS)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("cluster", "cluster.regions: empty; name an `env` file or write regions: [{name: …, workers: [1.0, …]}]"),
        (
            "model",
            "model: missing; it must be a model: {name: …}, one of gpt_neox, linear_regression, quadratic, sized",
        ),
        ("policy", "policy: missing; it must be a policy: {name: …}, one of async_local_sgd, diloco, halos"),
        ("steps", "steps: missing; it must be a step allocation: {name: …}, one of by_speed, fixed"),
        ("budget", "budget: empty; give local_steps, tokens, simulated_hours or target_loss"),
    ],
)
def test_a_missing_section_is_named_with_what_it_must_be(mistake, tiny_yaml, section, message):
    lines = tiny_yaml().splitlines(keepends=True)
    first = lines.index(f"{section}:\n")
    rest = next((i for i in range(first + 1, len(lines)) if not lines[i].startswith((" ", "-"))), len(lines))
    assert says(mistake("c.yaml", files={"c.yaml": "".join(lines[:first] + lines[rest:])}), message)


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


def test_an_env_file_that_cannot_be_decoded_is_named(mistake, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    assert "cluster.env: binary.yaml cannot be read" in mistake("tiny.yaml", "cluster={env: binary.yaml, regions: []}")
    assert "binary.yaml cannot be read" in mistake("binary.yaml")


def test_a_mistake_in_python_names_the_same_key():
    with pytest.raises(ConfigError) as caught:
        load(None, ["policy.outer=3", "model={name: sized, parameters: 1}", "policy.name=diloco", "steps=fixed"])
    assert caught.value.key == "policy.outer"


def test_memory_is_looked_at_before_any_of_it_is_taken(mistake, monkeypatch):
    def build(*_: object) -> None:
        raise AssertionError("built before looking")

    monkeypatch.setattr("halos.models.gpt_neox.GPTNeoX.build", build)
    monkeypatch.setattr("halos.executors.inline.available_memory", lambda: 16 * 2**30)
    said = mistake("tiny.yaml", "model={name: gpt_neox, size: pythia-1b}", "cluster.regions=[{workers: [1, 1, 1, 1]}]",
                   "train.optimizer.name=adamw")  # fmt: skip
    # 4 bytes · 806 M · (2 moments · 4 workers + 4) = 36 GiB
    assert "model: 805,998,592 parameters and 4 workers' optimizer states need at least 36.0 GiB of memory" in said
    assert "16.0 GiB are free; take a smaller model or fewer workers, or only time it with executor.name=timing" in said
