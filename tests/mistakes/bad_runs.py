"""Bad plugins, machines, folders and checkpoints, as the tables describe them in words (see bad_inputs.py)."""

from __future__ import annotations

import importlib.metadata
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from halos.run import cli as run
from halos.run.folder import locked
from halos.training.inline import Inline
from tests.mistakes.bad_inputs import Prepare, arguments, both, file, write

PREPARED: dict[str, Prepare] = {}

# Plugins

START = (
    "from dataclasses import dataclass\nfrom halos import Lost, all_of, hookimpl\nfrom halos.sim.clock import Event\n"
)
REGISTER = "@hookimpl\ndef register_sync_policies(register): "


def plugin(source: str, *words: str) -> Prepare:
    return file("mine.py", source, "tiny.yaml", "--plugin", "mine.py", *words)


def policy(body: str, *words: str, more: str = "") -> Prepare:
    """A policy `mine`; the first line of what it does is line 7 of its file."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    run = f"@dataclass\nclass Mine:\n    async def run(self, sim):\n{lines}{more}\n"
    return plugin(f"{START}{run}{REGISTER}register('mine', Mine)\n", "policy=mine", *words)


def model(loss: str, more: str = "", shapes: str = "") -> Prepare:
    """A model `mine`, a layer whose output is `y`, that returns this as its loss; `more` is done when it is built."""
    return plugin(
        "import torch\nfrom dataclasses import dataclass\nfrom torch import nn\nfrom halos import hookimpl\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.layer, self.other = nn.Linear(9, 1), nn.Linear(1, 1)\n        {more}\n\n"
        f"    def forward(self, batch):\n        y = self.other(self.layer(batch.float()))\n        return {loss}\n\n"
        f"@dataclass\nclass Mine:\n    {shapes}\n    def build(self, vocab_size, seed): return Net()\n\n"
        "@hookimpl\ndef register_models(register): register('mine', Mine)\n",
        "model=mine",
    )


def unfit(body: str) -> Prepare:
    return plugin(f"{START}@dataclass\nclass Mine:\n    {body}\n{REGISTER}register('mine', Mine)\n")


def installed(patch: pytest.MonkeyPatch, **packages: Callable[[], Any]) -> list[str]:
    """With these packages installed, by name, and nothing else."""
    distributions = [
        SimpleNamespace(
            metadata={"Name": name.replace("_", "-")},
            version="1.2",
            entry_points=[SimpleNamespace(group="halos", load=load)],
        )
        for name, load in packages.items()
    ]
    patch.setattr(importlib.metadata, "distributions", lambda: distributions)
    return ["tiny.yaml"]


def module(name: str) -> Callable[[], Any]:
    source = f"{START}@dataclass\nclass Mine:\n    async def run(self, sim): pass\n{REGISTER}register('mine', Mine)\n"
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(source, namespace)
    loaded = SimpleNamespace(__name__=name, register_sync_policies=namespace["register_sync_policies"])
    return lambda: loaded


FP16 = (
    "@dataclass\nclass Mine:\n    def roundtrip(self, payload): return payload\n"
    "    def wire_bytes(self, payload): return 1\n\n"
    "@hookimpl\ndef register_codecs(register): register('fp16', Mine)\n"
)
SOURCE = (
    "@dataclass\nclass Mine:\n    def vocabulary(self): pass\n    def open(self, seed): pass\n\n"
    "@hookimpl\ndef register_data_sources(register): register('mine', Mine)\n"
)


def observer(body: str, *words: str) -> Prepare:
    """The command, with an observer `mine` of this body."""
    registered = "@hookimpl\ndef register_observers(register): register('mine', Mine)\n"
    return plugin(f"{START}@dataclass\nclass Mine:\n    {body}\n{registered}", *words)


def plugin_folder(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    write("mine/parts.py", "")
    return ["tiny.yaml", "--plugin", "mine/"]


PREPARED |= {
    "a folder, `mine/`": plugin_folder,
    "`mine.py` with a syntax error": plugin("def (:\n"),
    "`mine.py` imports what is not there": plugin("import not_there\n"),
    "`mine.py` fails on line 2": plugin("x = 1\nx / 0\n"),
    "`mine.py` exits": plugin("raise SystemExit(3)"),
    "`mine.py` without any `@hookimpl`": plugin("x = 1\n"),
    "a misspelt hook, `on_comit`": plugin(START + "@hookimpl\ndef on_comit(commit): pass\n"),
    "a hook with a misspelt argument": plugin(START + "@hookimpl\ndef on_commit(comit): pass\n"),
    "an observer none of whose methods is marked": observer("def state(self): return {}"),
    "an observer whose `on_commit` is not marked": observer("def on_commit(self, commit): pass"),
    "a misspelt hook in an observer, `on_comit`": observer("@hookimpl\n    def on_comit(self, commit): pass"),
    "a hook in an observer with a misspelt argument": observer("@hookimpl\n    def on_commit(self, comit): pass"),
    "a policy that is no dataclass": plugin(f"{START}class Mine: pass\n{REGISTER}register('mine', Mine)"),
    "a policy that is no class": plugin(f"{START}{REGISTER}register('mine', 3)"),
    "a policy without a name": plugin(f"{START}{REGISTER}register('', int)"),
    "a policy without `run`": unfit("x: int = 1"),
    "a policy whose `run` is no coroutine": unfit("def run(self, sim): pass"),
    "a policy with a field `name`": unfit("name: str = ''\n    async def run(self, sim): pass"),
    "a data source without `sequence_length`": plugin(START + SOURCE),
    "a hook that raises": plugin(f"{START}{REGISTER}register()"),
    "a network model that has a method `capacity` and no `message_phases`": plugin(
        START
        + "@dataclass\nclass Mine:\n    def connect(self, cluster): pass\n    def transfer(self, *a): return 0.0\n"
        "    def all_reduce(self, *a): return 0.0\n    def round_trip(self, *a): return 0.0, 0.0\n"
        "    def capacity(self, link, time): return 1.0, 1e9\n\n"
        "@hookimpl\ndef register_network_models(register): register('mine', Mine)\n",
        "network={name: mine}",
    ),
    "two codecs with one name": plugin(START + FP16),
    "two installed packages with one name": lambda patch, stack: installed(
        patch, halos_one=module("one"), halos_other=module("other")
    ),
    "an installed package that does not load": lambda patch, stack: installed(patch, halos_broken=lambda: 1 / 0),
}


# The machine, the run folder


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fails(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fails


FULL = OSError(28, "No space left on device")


def patched(target: str, value: Any, *words: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        patch.setattr(target, value)
        return ["tiny.yaml", *words]

    return prepare


def unavailable(name: str, *words: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        patch.setitem(sys.modules, name, None)
        return list(words)

    return prepare


def lacking(method: str, *words: str) -> Prepare:
    """Without a method that executors may have."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        patch.delattr(Inline, method)
        return ["tiny.yaml", *words]

    return prepare


def in_use(folder: str, *words: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(Path(folder)))
        return list(words)

    return prepare


def once(*words: str) -> Prepare:
    """After a run with these arguments."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        assert run.main(["tiny.yaml", *words]) == 0
        return ["tiny.yaml"]

    return prepare


class FullDisk:
    """A file with no room for anything."""

    def __init__(self, file: Any) -> None:
        self.fileno, self.close = file.fileno, file.close
        self.write = raising(FULL)


def full_meanwhile(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    opened = Path.open

    def full(path: Path, *mode: Any, **more: Any) -> Any:
        file = opened(path, *mode, **more)
        return FullDisk(file) if path.name == "updates.jsonl" and mode == ("wb",) else file

    patch.setattr(Path, "open", full)
    patch.setattr("halos.observers.jsonl.FLUSH_SECONDS", 0.0)
    return ["tiny.yaml"]


PREPARED |= {
    "halos-data-parallel with `policy=data_parallel` and an executor that has no method `step`": lacking(
        "step", "--plugin", "halos_data_parallel", "policy=data_parallel"
    ),
    "memory that runs out while the model is built": patched(
        "halos.models.toy.Quadratic.build", raising(torch.OutOfMemoryError("CUDA out of memory"))
    ),
    "`observers.tensorboard=true`, but tensorboard is not installed": unavailable(
        "tensorboard.compat.proto.summary_pb2", "tiny.yaml", "observers.tensorboard=true"
    ),
    "`train.precision=fp16`, and gradients that are not finite": both(
        model("(y * 0).sqrt().mean()"), arguments("train.precision=fp16")
    ),
    "the same, with `budget.local_steps=80`": both(
        model("(y * 0).sqrt().mean()"), arguments("train.precision=fp16", "budget.local_steps=80")
    ),
    "a model whose loss is a tuple": model("y.mean(), y"),
    "a model whose loss is a vector": model("y[:, 0]"),
    "a model whose loss is a whole number": model("y.mean().long()"),
    "a model whose loss is detached": model("y.mean().detach()"),
    "a model that fails": model("(y @ self.layer.weight.T).mean()"),
    "a model that does not use a parameter": model("self.layer(batch.float()).mean()"),
    "a model with a layer in a plain list": model(
        "self.list[0](y).mean()", "self.list = [nn.Linear(1, 1, bias=False)]"
    ),
    "a model in two precisions": model("y.mean()", "self.other.double()"),
    "a model whose parameters are all frozen": model("y.mean()", "self.requires_grad_(False)"),
    "a model of a lazy layer": model("y.mean()", "self.other = nn.LazyLinear(1)"),
    "a model that ties weights by their memory": model("y.mean()", "self.other.bias.data = self.layer.bias.data"),
    "a model that changes a frozen parameter": model(
        "y.mean() + self.goal.mul_(0.9).sum()", "self.goal = nn.Parameter(torch.ones(1), requires_grad=False)"
    ),
    "a model that gives a parameter other memory": model(
        "y.mean() + 0 * self.clamp()", "self.clamp = lambda: setattr(self.other.bias, 'data', torch.zeros(1)) or 0"
    ),
    "a model whose `shapes` are not what it builds": model(
        "y.mean()", shapes="def shapes(self, vocab_size): return {'layer.weight': (1, 8)}"
    ),
    "a model that cannot be built": model("y.mean()", "nn.Linear('9', 1)"),
    "`train.precision=fp16`, and a model in fp16": both(
        model("y.float().mean()", "self.half()"), arguments("train.precision=fp16")
    ),
    "`checkpoint.every_local_steps=4`, and an executor that cannot be saved": lacking(
        "state", "checkpoint.every_local_steps=4"
    ),
    "`faults={inner_state: gone}`, and an executor that cannot forget": lacking("forget", "faults={inner_state: gone}"),
    "`out=used`, where there are files": file("used/file", "", "tiny.yaml", "out=used"),
    "the same run once more": once(),
    "`out=used`, where another run is about to begin": in_use("used", "tiny.yaml", "out=used"),
    "a disk that is full at the start": patched("pathlib.Path.write_text", raising(FULL)),
    "`--plot` `a.png`, but matplotlib is not installed": unavailable(
        "matplotlib.figure", "curves.yaml", "--plot", "a.png"
    ),
    "`--html` `a.html`, but matplotlib is not installed": unavailable(
        "matplotlib.figure", "python -m halos.compare runs --html a.html"
    ),
}


# Checkpoints

RESUME = ["--resume", "runs/run"]


def checkpoints() -> list[Path]:
    """Newest first."""
    return sorted(Path("runs/run/checkpoints").iterdir(), reverse=True)


def damaged(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    for path in checkpoints():
        path.write_bytes(path.read_bytes()[:-100])
    return RESUME


def newest_damaged(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    checkpoints()[0].write_bytes(b"")
    assert len(checkpoints()) == 2
    return RESUME


def replaced(make: Callable[[Path], object]) -> Prepare:
    """All checkpoints replaced by a file under the name that its content would have as one."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        for path in checkpoints()[1:]:
            path.unlink()
        (path,) = checkpoints()
        make(path)
        digest = blake2b(path.read_bytes(), digest_size=16).hexdigest()
        path.rename(path.with_name(f"events-000000000009-{digest}.pt"))
        return RESUME

    return prepare


def of_another_format(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "format": 0}, path)


def edited_records(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    path = Path("runs/run/updates.jsonl")
    write(str(path), path.read_text().replace('"time"', '"tide"', 1))
    return RESUME


def resumed_after(change: Prepare, *words: str) -> Prepare:
    """A run of its own with these arguments; then the change."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        assert run.main(["tiny.yaml", "name=own", "checkpoint.every_local_steps=4", *words]) == 0
        change(patch, stack)
        return ["--resume", "runs/own"]

    return prepare


def other_version(target: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        patch.setattr(target, "9.9")
        return RESUME

    return prepare


DILOCO = (
    "theta = sim.params\nfor r in sim.rounds():\n"
    "    updates = await all_of(sim.train(worker, theta, round=r) for worker in sim.workers)\n"
    "    delta = await sim.all_reduce(update.delta for update in updates)\n"
    "    kept = delta.flat.clone()\n    theta = theta - delta\n    sim.commit(theta, updates)"
)
WORDS = "data={name: text, path: words.txt, sequence_length: 8, validation_samples: 1}"


def keeps_tensors(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    words = policy(DILOCO, "checkpoint.every_local_steps=4", "name=own")(patch, stack)
    assert run.main(words) == 0
    return ["--resume", "runs/own"]


def other_data(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    write("words.txt", 400 * "one text of a few words ")
    return resumed_after(file("words.txt", 400 * "a text of some other words "), WORDS)(patch, stack)


def edited_plugin(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    source = START + FP16.replace("'fp16'", "'mine'")  # one that only watches might be another
    write("mine.py", source)
    return resumed_after(file("mine.py", source + "# another\n"), "--plugin", "mine.py")(patch, stack)


def replaced_by(path: str, make: Callable[[Path], object]) -> Prepare:
    """Another thing in the place of what a run has written."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        there = Path("runs/run", path)
        if there.is_dir():
            shutil.rmtree(there)
        else:
            there.unlink()
        make(there)
        return RESUME

    return prepare


def not_a_run(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    write("used/file", "")
    return ["--resume", "used"]


def no_checkpoints(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    for path in checkpoints():
        path.unlink()
    return RESUME


PREPARED |= {
    "a run without checkpoints": no_checkpoints,
    "checkpoints all cut short": damaged,
    "a checkpoint of another format": replaced(of_another_format),
    "a checkpoint that is a model": replaced(lambda path: torch.save({"theta": torch.zeros(2)}, path)),
    "a checkpoint that is a text": replaced(lambda path: path.write_text("not what it seems")),
    "other data under the same name": other_data,
    "a plugin that was edited since": edited_plugin,
    "another version of halos": other_version("halos.plugins.registry.VERSION"),
    "`updates.jsonl` was edited": edited_records,
    "a folder in the place of `updates.jsonl`": replaced_by("updates.jsonl", Path.mkdir),
    "a file in the place of `checkpoints`": replaced_by("checkpoints", Path.touch),
    "a folder that no run was in, `used`": not_a_run,
    "another run is going on there": in_use("runs/run", *RESUME),
    "a policy that keeps tensors by itself": keeps_tensors,
    "`--resume` where the newest checkpoint is cut short": newest_damaged,
    "`--resume` with another PyTorch": other_version("torch.__version__"),
}


# While a run is under way, and how it stops


SHORT = (
    "from dataclasses import dataclass\nfrom halos import hookimpl\nfrom halos.data import ArrayCorpus\n"
    "from halos.data.synthetic import Synthetic\n\n"
    "@dataclass(kw_only=True)\nclass Short(Synthetic):\n    def open(self, seed):\n"
    "        corpus = super().open(seed)\n        return ArrayCorpus(corpus.samples[:, :5], 64, corpus.hash)\n\n"
    "@hookimpl\ndef register_data_sources(register): register('short', Short)\n"
)
SETS = (
    "evaluate.sets={other: {name: tokens, path: tokens.npy, sequence_length: 8, vocab_size: 3, validation_samples: 2}}"
)


def high_tokens(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    np.save("tokens.npy", np.arange(99) % 10)
    return ["tiny.yaml", "data.vocab_size=3", "data.branching=3", SETS]


SMALL = (
    "from dataclasses import dataclass\nimport torch\nfrom halos import hookimpl\n\n"
    "@dataclass\nclass Small:\n    def shapes(self, vocab_size):\n        return {'0.weight': (5, 1)}\n"
    "    def build(self, vocab_size, seed):\n        return torch.nn.Sequential(torch.nn.Embedding(5, 1), Mean())\n\n"
    "class Mean(torch.nn.Module):\n    def forward(self, x):\n        return x.mean()\n\n"
    "@hookimpl\ndef register_models(register): register('small', Small)\n"
)


def few_rows(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    np.save("tokens.npy", np.repeat(np.array([0, 0, 0, 0, 0, 0, 9, 0]), 9).reshape(8, 9))
    data = "data={name: tokens, path: tokens.npy, sequence_length: 8, validation_samples: 1, shuffle: false}"
    return plugin(SMALL, "model=small", data)(patch, stack)


def nowhere_to_keep(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    letters = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.save("tokenizer.json")
    write("a.txt", 99 * "ab")
    write("kept", "")
    tiny = Path("tiny.yaml").read_text(encoding="utf-8")
    write("tiny.yaml", "".join(line for line in tiny.splitlines(keepends=True) if not line.startswith("data:")))
    options = "tokenizer: tokenizer.json, cache: kept, sequence_length: 8, validation_samples: 1"
    return ["tiny.yaml", f"data={{name: text, path: a.txt, {options}}}"]


def little_shared(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    """No file, not even one in memory, may be larger than a MiB; what a run writes is not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
    return ["tiny.yaml", "model.size=20000", ONE]


ONE = "executor={name: parallel, processes: 1}"
KILLS = (
    "import multiprocessing\n\n@hookimpl\ndef on_commit(commit):\n"
    "    for child in multiprocessing.active_children():\n        child.kill()\n        child.join()\n"
)
CRASH = "faults={name: crashes, at: [{worker: 1, at_seconds: 1, seconds: 9}]}"

PREPARED |= {
    "a model whose embedding has fewer rows than the data has tokens": few_rows,
    "an evaluation set with `vocab_size: 3`, where tokens go up to 9": high_tokens,
    "tokenised text, and a `data.cache` that is no folder": nowhere_to_keep,
    "a data source of another length than it says": plugin(
        SHORT, "data={name: short, samples: 64, sequence_length: 8, validation_samples: 8}"
    ),
    "a disk that is full at the end": patched("torch.save", raising(FULL)),
    "a disk that is full meanwhile": full_meanwhile,
    "a policy that waits for what nobody brings about": policy("await sim.sleep(3)\nawait Event(sim.clock)"),
    "workers that crash long before a job is over, `faults={name: crashes, between_failures_hours: 2e-5}`": patched(
        "halos.sim.faults.losses.MOST_IN_A_ROW", 1000, "faults={name: crashes, between_failures_hours: 2e-5}"
    ),
    "a policy that does not go on after a loss": policy(
        "await all_of(sim.train(worker, sim.params) for worker in sim.workers)", CRASH
    ),
    "shared memory that is not enough": little_shared,
    f"`{ONE}`, and that process is killed": plugin(START + KILLS, ONE),
    "Ctrl-C": plugin(START + "@hookimpl\ndef on_commit(commit): raise KeyboardInterrupt\n"),
    "a disk that is full when a checkpoint is due": patched(
        "halos.resume.checkpoint.os.fsync", raising(FULL), "checkpoint.every_local_steps=4"
    ),
    "an observer whose `summary` raises": observer(
        "@hookimpl\n    def on_commit(self, commit): pass\n    def summary(self): return {'n': 1 / 0}",
        "observers.extra.mine={}",
    ),
    "a policy whose `report` raises": policy(
        "pass", more="    outer: dict = None  # as in tiny.yaml\n\n    def report(self):\n        return 1 / 0\n"
    ),
}
