"""Bad files: how what the tables describe in words is brought about, in the working directory of a test.

By description: a function that prepares it and returns the arguments with which the command then finds the mistake.
"""

from __future__ import annotations

import gzip
import json
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from halos.config.layers import read
from halos.config.yaml_text import to_yaml
from halos.data import megatron
from halos.models.gpt_neox import GPTNeoX

Prepare = Callable[[pytest.MonkeyPatch, ExitStack], list[str]]
PREPARED: dict[str, Prepare] = {}


def write(name: str, content: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def arguments(*words: str) -> Prepare:
    return lambda patch, stack: list(words)


def file(name: str, content: str | bytes, *words: str) -> Prepare:
    """With a file `name`, these arguments."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        write(name, content)
        return list(words)

    return prepare


def both(first: Prepare, then: Prepare) -> Prepare:
    return lambda patch, stack: [*first(patch, stack), *then(patch, stack)]


def without(section: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        config = read(Path("tiny.yaml"))
        del config[section]
        write("c.yaml", to_yaml(config))
        return ["c.yaml"]

    return prepare


PREPARED |= {
    "one argument of two lines, `seed=1` and `name: x`": arguments("tiny.yaml", "seed=1\nname: x"),
    "`seed=` and a thousand nines": arguments("tiny.yaml", "seed=" + 1000 * "9"),
    "`train.clip=` and a thousand nines": arguments("tiny.yaml", "train.clip=" + 1000 * "9"),
    "`name=` and three hundred times `x`": arguments("tiny.yaml", "name=" + 300 * "x"),
    "`c.yaml` is `a: [1`": file("c.yaml", "a: [1", "c.yaml"),
    "`c.yaml` has the key `a` twice": file("c.yaml", "a: 1\na: 2", "c.yaml"),
    "`c.yaml` is `a: ${b`": file("c.yaml", "a: ${b", "c.yaml"),
    "`c.yaml` is a zero byte": file("c.yaml", "\0", "c.yaml"),
    "`c.yaml` is no text": file("c.yaml", b"\xff\xfe\xff", "c.yaml"),
    "`c.yaml` is `halos`": file("c.yaml", "halos", "c.yaml"),
    "`c.yaml` is `42`": file("c.yaml", "42", "c.yaml"),
    "`c.yaml` is `1: 2`": file("c.yaml", "1: 2", "c.yaml"),
    "`c.yaml` is `- name: run`": file("c.yaml", "- name: run", "c.yaml"),
    "`c.yaml` is empty": file("c.yaml", "", "c.yaml"),
    **{f"`tiny.yaml` without `{section}`": without(section)
       for section in ("cluster", "model", "policy", "steps", "budget")},
    "`c.yaml` extends itself": file("c.yaml", "extends: c.yaml", "c.yaml"),
    "`c.yaml` extends `d.yaml`, which extends `c.yaml`": both(
        file("d.yaml", "extends: c.yaml"), file("c.yaml", "extends: [d.yaml]", "c.yaml")
    ),
    "`c.yaml` extends `d.yaml`, which is not there": file("c.yaml", "extends: d.yaml", "c.yaml"),
    "`c.yaml` extends `.`": file("c.yaml", "extends: .", "c.yaml"),
    "`c.yaml` extends `{a: 1}`": file("c.yaml", "extends: {a: 1}", "c.yaml"),
    "`c.yaml` extends `d.yaml`, which is `x: [`": both(
        file("d.yaml", "x: ["), file("c.yaml", "extends: d.yaml", "c.yaml")
    ),
}  # fmt: skip


# The cluster's environment file

ENV = "num_regions: 2\nnetwork_bandwidths: [[9, 1], [1, 9]]\nworker_speeds: [[1, 1], [1]]\n"


def env(content: str | bytes) -> Prepare:
    cluster = ("cluster={env: env.yaml, regions: []}", "network.bandwidth_gbps=null")
    return file("env.yaml", content, "tiny.yaml", *cluster)


def env_with(line: str) -> Prepare:
    """With this line in the place of that for the same key."""
    key = line.split(":")[0]
    return env("\n".join(line if each.startswith(key) else each for each in ENV.splitlines()))


PREPARED |= {
    "`env.yaml` is no text": env(b"\xff\xfe\xff"),
    "`env.yaml` is `3`": env("3"),
    "`env.yaml` is `a: [`": env("a: ["),
    "`env.yaml` without `num_regions`": env(ENV.replace("num_regions", "regions")),
    **{
        f"`env.yaml` with `{line}`": env_with(line)
        for line in (
            "num_regions: two",
            "num_regions: 3",
            "worker_speeds: [[1, 1], [.nan]]",
            "worker_speeds: [[1, 1], [0]]",
            "worker_speeds: [[], []]",
            "network_bandwidths: [[9, -1], [1, 9]]",
            "network_bandwidths: [[9], [1, 9]]",
            "network_bandwidths: 7",
        )
    },
}


# Models and data

NEOX = "name: gpt_neox, hidden_size: 8, layers: 1, heads: 1"
HEAD = "lm_head.weight"


def weights(name: str, make: Callable[[str], object]) -> Prepare:
    """A small GPT-NeoX that takes its weights from `name`, which `make` makes."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        make(name)
        return ["tiny.yaml", f"model={{{NEOX}, weights: {name}}}"]

    return prepare


def fitting(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The weights that fit, but for some changes (`__` is a dot)."""
    state = dict(GPTNeoX(hidden_size=8, layers=1, heads=1).build(64, seed=1).state_dict())
    for name, tensor in changes.items():
        if tensor is None:
            del state[name.replace("__", ".")]
        else:
            state[name.replace("__", ".")] = tensor
    return state


def state(**changes: torch.Tensor | None) -> Prepare:
    return weights("w.pt", lambda name: torch.save(fitting(**changes), name))


def cut_short(name: str) -> None:
    torch.save(fitting(), name)
    write(name, Path(name).read_bytes()[:500])


def checkpoint_folder(**config: object) -> Prepare:
    def make(name: str) -> None:
        Path(name).mkdir()
        torch.save(fitting(), f"{name}/pytorch_model.bin")
        write(f"{name}/config.json", json.dumps(config))

    return weights("w", make)


def no_safetensors(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    patch.setitem(sys.modules, "safetensors", None)
    patch.setitem(sys.modules, "safetensors.torch", None)
    return weights("w.safetensors", lambda name: write(name, ""))(patch, stack)


PREPARED |= {
    "`model.weights` is an empty folder": weights("w", lambda name: Path(name).mkdir()),
    "`model.weights` is a text file": weights("w.txt", lambda name: write(name, "not what it seems")),
    "`model.weights` is a damaged `.npz`": weights("w.npz", lambda name: write(name, "not what it seems")),
    "`model.weights` is a `.pt` cut short": weights("w.pt", cut_short),
    "`model.weights` is a `.pt` that holds code": weights("w.pt", lambda name: torch.save({"a": Path("/")}, name)),
    "`model.weights` is a `.pt` of a state dict inside another dictionary": weights(
        "w.pt", lambda name: torch.save({"model": fitting()}, name)
    ),
    "`model.weights` is a folder whose index has no `weight_map`": weights(
        "w", lambda name: write(f"{name}/model.safetensors.index.json", "{}")
    ),
    "`model.weights` is a folder whose index names a file that is not there": weights(
        "w", lambda name: write(f"{name}/pytorch_model.bin.index.json", '{"weight_map": {"a": "shard.bin"}}')
    ),
    "`model.weights` is a `.safetensors`, which is not installed": no_safetensors,
    "`model.weights` lack a tensor": state(lm_head__weight=None),
    "`model.weights` have a tensor more": state(odd__weight=torch.zeros(1)),
    "`model.weights` have a tensor of another shape": state(lm_head__weight=torch.zeros(8, 64)),
    "`model.weights` have a tensor of integers": state(lm_head__weight=torch.zeros(64, 8, dtype=torch.int64)),
    "`model.weights` have a tensor with NaN": state(lm_head__weight=torch.full((64, 8), torch.nan)),
    "`model.weights` are those of another architecture": checkpoint_folder(model_type="llama", hidden_act="silu"),
    "`model.weights` are those of a model with 2 heads": checkpoint_folder(num_attention_heads=2),
}


def array(content: Any, more: str = "") -> Prepare:
    """`tokens.npy`, read in samples of 17 tokens."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        np.save("tokens.npy", content)
        return ["tiny.yaml", f"data={{name: tokens, path: tokens.npy, sequence_length: 16{more}}}"]

    return prepare


def archive(more: str = "") -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        np.savez("tokens.npz", one=np.zeros(9), two=np.zeros(9))
        return ["tiny.yaml", f"data={{name: tokens, path: tokens.npz{more}}}"]

    return prepare


def pair(
    change: Callable[[bytes], bytes] = lambda idx: idx,
    data: bytes | None = bytes(54),
    sequence_length: int = 8,
    more: str = "",
) -> Prepare:
    """`corpus.bin` and `corpus.idx` of three samples of nine tokens, two bytes each; one of the two changed."""

    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        megatron.write("corpus", [list(range(9))] * 3)
        write("corpus.idx", change(Path("corpus.idx").read_bytes()))
        if data is None:
            Path("corpus.bin").unlink()
        else:
            write("corpus.bin", data)
        options = f"sequence_length: {sequence_length}, validation_samples: 1{more}"
        return ["tiny.yaml", f"data={{name: megatron, path: corpus, {options}}}"]

    return prepare


def at(place: int, kind: str, value: int) -> Callable[[bytes], bytes]:
    """An index with another number (as `struct` packs it) at this byte: 34 of header, 3 lengths, 3 offsets."""
    return lambda idx: idx[:place] + struct.pack(f"<{kind}", value) + idx[place + struct.calcsize(kind) :]


def negative_tokens(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    megatron.write("corpus", [[1, -2, 3]] * 3, "int32")
    return ["tiny.yaml", "data={name: megatron, path: corpus, sequence_length: 2, validation_samples: 1}"]


def empty_folder(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    Path("empty").mkdir()
    return ["tiny.yaml", "data={name: text, path: empty}"]


def lines(content: str, field: str = "text") -> Prepare:
    """`lines.jsonl`, of this content."""
    return file("lines.jsonl", content, "tiny.yaml", f"data={{name: text, path: lines.jsonl, field: {field}}}")


def table(field: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        pyarrow.parquet.write_table(pyarrow.table({"id": [1], "text": ["a"]}), "table.parquet")
        return ["tiny.yaml", f"data={{name: text, path: table.parquet, field: {field}}}"]

    return prepare


def no_tiktoken(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
    patch.setitem(sys.modules, "tiktoken", None)
    return ["tiny.yaml", "data={name: text, tokenizer: gpt2}"]


def huge_token(*words: str) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch, stack: ExitStack) -> list[str]:
        np.save("tokens.npy", np.full(99, 2**64 - 1, np.uint64))
        return ["tiny.yaml", *words]

    return prepare


HUGE = (
    "from dataclasses import dataclass\nfrom halos import ArrayCorpus, DataOptions, hookimpl\nimport numpy as np\n\n"
    "@dataclass(kw_only=True)\nclass Huge(DataOptions):\n    def vocabulary(self):\n        return 2**64\n"
    "    def open(self, seed):\n        return ArrayCorpus(np.zeros((9, 257), int), 2**64)\n\n"
    "@hookimpl\ndef register_data_sources(register): register('huge', Huge)\n"
)
OLDER = b"TNTIDX\0\0" + struct.pack("<6Q 7q", 1, 8, 2, 1, 1, 2, *(0, 1), *(0, 9), 9, *(0, 1))
TEXTS = "data={name: text, path: texts, sequence_length: 8, validation_samples: 1, shards: by_source}"
TEN = np.zeros((10, 17), np.uint16)

PREPARED |= {
    "`data={name: text, path: empty}`, a folder without files": empty_folder,
    "`data={name: text, path: texts, shards: by_source}` of one file, and two regions": file(
        "texts/one.txt", 99 * "a", "tiny.yaml", TEXTS, "cluster={env: env.yaml, regions: []}"
    ),
    "`data.field` is none of a line's of `lines.jsonl`": lines('{"id": 1, "text": "a"}', "txt"),
    "`data.field` is no column of `table.parquet`": table("txt"),
    "`data.field` is null, and `table.parquet` has columns": table("null"),
    "a line of `lines.jsonl` is no JSON": lines('{"text": "a"}\n{"text"'),
    "a line of `lines.jsonl` is a list": lines("[1]\n"),
    "a line of `lines.jsonl` has a number for a text": lines('{"text": 1}'),
    "`data.path` is a `.json` of settings": file(
        "settings.json", '{\n  "a": 1\n}', "tiny.yaml", "data={name: text, path: settings.json}"
    ),
    "`data.path` is a `.gz` cut short": file(
        "a.txt.gz", gzip.compress(999 * b"text")[:-5], "tiny.yaml", "data={name: text, path: a.txt.gz}"
    ),
    "`data.tokenizer` is one of tiktoken's, which is not installed": no_tiktoken,
    "`tokens.npy` holds a token of 64 bits": huge_token("data={name: tokens, path: tokens.npy, sequence_length: 16}"),
    "`tokens.npy` of an evaluation set holds a token of 64 bits": huge_token(
        "evaluate.sets={other: {name: tokens, path: tokens.npy, sequence_length: 16}}"
    ),
    "a data source of a vocabulary of 64 bits": file("huge.py", HUGE, "tiny.yaml", "data=huge", "--plugin", "huge.py"),
    "a data source of a vocabulary of 64 bits, and `executor=timing`": file(
        "huge.py", HUGE, "tiny.yaml", "data=huge", "--plugin", "huge.py", "executor=timing"
    ),
    "`tokens.npy` has rows of 9 tokens, and `data.sequence_length` is 16": array(np.zeros((99, 9), np.uint16)),
    "`tokens.npy` holds fractions": array(np.zeros(99)),
    "`tokens.npy` has three dimensions": array(np.zeros((1, 1, 17), int)),
    "`tokens.npy` has no rows": array(np.zeros((0, 17), int)),
    "`tokens.npy` holds 9 tokens, and `data.sequence_length` is 16": array(np.zeros(9, int)),
    "`tokens.npy` holds -2": array(np.full(99, -2)),
    "`tokens.npy` is no such file, but text": file(
        "tokens.npy", "not what it seems", "tiny.yaml", "data={name: tokens, path: tokens.npy}"
    ),
    "`tokens.npz` holds two arrays, and no `data.key` is given": archive(),
    "`tokens.npz` holds two arrays, and `data.key` is neither": archive(", key: tow"),
    "`tokens.npz` is no archive": file(
        "tokens.npz", "not what it seems", "tiny.yaml", "data={name: tokens, path: tokens.npz}"
    ),
    "`tokens.bin` has 3 bytes": file("tokens.bin", "abc", "tiny.yaml", "data={name: tokens, path: tokens.bin}"),
    "`tokens.npy` holds 10 samples, `data.validation_samples` is 11": array(TEN, ", validation_samples: 11"),
    "`tokens.npy` holds 10 samples, `data.validation_samples` is 10": array(TEN, ", validation_samples: 10"),
    "`corpus.bin` is missing": pair(data=None),
    "`corpus.bin` is empty": pair(data=b""),
    "`corpus.idx` is empty": pair(lambda idx: b""),
    "`corpus.idx` cut short": pair(lambda idx: idx[:-1]),
    "`corpus.idx` is of another format": pair(lambda idx: b"MMIDIDY\0\0" + idx[9:]),
    "`corpus.idx` is of a later version": pair(at(9, "Q", 2)),
    "`corpus.idx` is of fractions": pair(at(17, "B", 6)),
    "`corpus.idx` holds no sequence": pair(lambda idx: idx[:18] + bytes(16)),
    "`corpus.idx` with a sequence of -9 tokens": pair(at(34 + 4, "i", -9)),
    "`corpus.idx` with sequences of 9 tokens, and `data.sequence_length` is 16": pair(sequence_length=16),
    "`corpus.idx` with sequences of 9 tokens, `data.sequence_length` is 16, and `data.pack` is false": pair(
        sequence_length=16, more=", pack: false"
    ),
    "`corpus.idx` with sequences of 9 tokens, and `data.sequence_length` is 32": pair(sequence_length=32),
    "`corpus.idx` is of the older format, cut short": pair(lambda idx: OLDER[:-1]),
    "`corpus.idx` beyond its `.bin`": pair(at(34 + 3 * 4 + 2 * 8, "q", 37)),
    "`corpus.bin` holds -2": negative_tokens,
    "`data={name: tokens, path: tokens.npy, vocab_size: 3}`, where tokens go up to 9": array(
        np.arange(10).repeat(17).reshape(10, 17), ", vocab_size: 3, validation_samples: 1"
    ),
}

# Grid files

SWEEP = "python -m halos.sweep grid.yaml"
PREPARED |= {
    f"`grid.yaml` with {described}": file("grid.yaml", f"config: tiny.yaml\n{content}\n", SWEEP)
    for described, content in {
        "`axis: {seed: [1]}`": "axis: {seed: [1]}",
        "`set: {out: x}`": "set: {out: x}",
        "`axes: {seed: 3}`": "axes: {seed: 3}",
        "`axes: {seed: []}`": "axes: {seed: []}",
        "`axes: {method: {A: 3}}`": "axes: {method: {A: 3}}",
        "`axes: {seed: [1, 2]}` and `without: [{seed: 3}]`": "axes: {seed: [1, 2]}\nwithout: [{seed: 3}]",
        "`axes: {seed: [1]}` and `without: [{seed: 1}]`": "axes: {seed: [1]}\nwithout: [{seed: 1}]",
    }.items()
}
