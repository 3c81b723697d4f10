"""Whatever data or weights files hold: a run on tokens that are in them, or one line that names the key."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from halos.config.yaml_text import Section, to_yaml
from tests.no_files import endless, folder, link_to_itself, link_to_nowhere, not_for_us, pipe
from tests.outcome import QUIET, Outcome, Witness, ended, examples, here

EXTREMES = [0, 1, -1, 2**15, 2**31 - 1, -(2**31), 2**32, 2**40, 2**60, 2**63 - 1, 2**63, -(2**63), 2**64 - 1]
LENGTH = 8  # predicted tokens of a sample


def trained_on(data: Section) -> tuple[Outcome, list[list[int]]]:
    """A run on some data, in the working directory, and the samples it saw."""
    data = {"sequence_length": LENGTH, "validation_samples": 1, "shuffle": True, **data}
    without = {key: value for key, value in QUIET.items() if key not in ("data", "model")}
    sections = {**without, "model": {"name": "witness"}, "data": data, "out": "run"}
    shutil.rmtree("run", ignore_errors=True)
    Path("c.yaml").write_text(to_yaml(sections), encoding="utf-8")
    outcome = ended("c.yaml", plugins=("witness",))
    return outcome, [sample for batch in Witness.seen for sample in batch.tolist()] if outcome.code == 0 else []


def refused(outcome: Outcome, key: str = "data") -> bool:
    """Refused, with the key named, and no folder made, unless it is about a token, which may come up under way."""
    may_be_under_way = outcome.err.startswith("error: data: the corpus holds token ")
    in_time = may_be_under_way or not Path("run").exists()
    return outcome.refused and outcome.err.startswith(f"error: {key}") and in_time


def settled(outcome: Outcome, key: str = "data") -> bool:
    """Refused, or a run that ended."""
    return refused(outcome, key) or (outcome.code == 0 and outcome.well)


def in_file(sample: list[int], content: bytes, kinds: str = "BbhHiIqQ") -> bool:
    """Whether a file holds these tokens one after another, as little-endian integers of some kind."""
    for kind in kinds:
        try:
            if struct.pack(f"<{len(sample)}{kind}", *sample) in content:
                return True
        except struct.error:
            continue
    return False


# Megatron's .bin and .idx

MANY = 7  # sequences
TOKENS = np.arange(MANY * (LENGTH + 1), dtype="<u2") * 17 % 251
HEADER = 34
LENGTHS, OFFSETS = HEADER, HEADER + 4 * MANY
DOCUMENTS = OFFSETS + 8 * MANY
IDX = (
    b"MMIDIDX\0\0"
    + struct.pack("<QBQQ", 1, 8, MANY, MANY + 1)
    + struct.pack(f"<{MANY}i", *[LENGTH + 1] * MANY)
    + struct.pack(f"<{MANY}q", *[2 * (LENGTH + 1) * i for i in range(MANY)])
    + struct.pack(f"<{MANY + 1}q", *range(MANY + 1))
)
BIN = TOKENS.tobytes()
FIELDS = (  # of the index: where, and how wide
    [(9, 8), (17, 1), (18, 8), (26, 8)]
    + [(LENGTHS + 4 * i, 4) for i in range(MANY)]
    + [(OFFSETS + 8 * i, 8) for i in range(MANY)]
    + [(DOCUMENTS + 8 * i, 8) for i in range(MANY + 1)]
)

Change = Callable[[bytes], bytes]


def put(place: int, width: int, value: int) -> Change:
    piece = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return lambda content: content[:place] + piece + content[place + width :]


def changes(size: int) -> st.SearchStrategy[Change]:
    """What happens to any file: bytes overwritten, cut off, put in, appended."""
    return st.one_of(
        st.builds(put, st.integers(0, size - 1), st.just(1), st.integers(0, 255)),
        st.builds(lambda at: lambda content: content[:at], st.integers(0, size)),
        st.builds(
            lambda at, more: lambda content: content[:at] + more + content[at:], st.integers(0, size), st.binary()
        ),
        st.builds(lambda more: lambda content: content + more, st.binary(max_size=9)),
    )


FIELD = st.builds(
    lambda field, value: put(field[0], field[1], value),
    st.sampled_from(FIELDS),
    st.one_of(st.sampled_from(EXTREMES), st.integers(-9, 300)),
)


def damaged(content: bytes, several: list[Change]) -> bytes:
    for change in several:
        content = change(content)
    return content


@examples(25)
@given(
    idx=st.lists(st.one_of(FIELD, FIELD, changes(len(IDX))), max_size=3),
    bin_=st.lists(changes(len(BIN)), max_size=1),
    options=st.sampled_from([{}, {"vocab_size": 251}, {"validation_samples": 0}, {"sequence_length": 1}]),
)
def test_a_pair_of_bin_and_idx(idx: list[Change], bin_: list[Change], options: Section) -> None:
    with here():
        Path("a.idx").write_bytes(damaged(IDX, idx))
        Path("a.bin").write_bytes(content := damaged(BIN, bin_))
        outcome, samples = trained_on({"name": "megatron", "path": "a", "pack": False, **options})
        assert settled(outcome), outcome
        assert all(in_file(sample, content) for sample in samples)
        outcome, samples = trained_on({"name": "megatron", "path": "a", **options})
        assert settled(outcome), outcome
        assert all(in_file([token], content) for sample in samples for token in sample)  # packed, of pieces


def test_the_pair_as_it_is_is_trained_on() -> None:
    with here():
        Path("a.idx").write_bytes(IDX)
        Path("a.bin").write_bytes(BIN)
        outcome, samples = trained_on({"name": "megatron", "path": "a"})
        assert outcome.code == 0 and outcome.well, outcome
        rows = TOKENS.reshape(MANY, -1).tolist()
        assert samples and all(sample in rows for sample in samples)


def test_every_dtype_there_could_be() -> None:
    kinds = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}  # of which those wider than two bytes do not fit
    with here():
        Path("a.bin").write_bytes(BIN)
        for code in (*range(10), 77, 255):
            Path("a.idx").write_bytes(put(17, 1, code)(IDX))
            outcome, samples = trained_on({"name": "megatron", "path": "a", "vocab_size": 2**15})
            if code in (1, 3, 8):
                assert outcome.code == 0 and outcome.well, (code, outcome)
                assert samples and all(in_file(sample, BIN, kinds[code]) for sample in samples)
            else:
                assert refused(outcome), (code, outcome)  # of int8, some are negative


# What is no file, or never ends


def unreadable(path: Path) -> None:
    not_for_us(path, 0, BIN)


def in_a_closed_folder(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    closed = path.with_name("closed")
    closed.mkdir()
    path.symlink_to("closed/file")
    closed.chmod(0)


NO_FILES = [folder, pipe, endless, link_to_nowhere, link_to_itself, unreadable, in_a_closed_folder]
TOO_LONG = "x" * 5000


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize(
    ("name", "other", "data"),
    [
        ("a.idx", "a.bin", {"name": "megatron", "path": "a"}),
        ("a.bin", "a.idx", {"name": "megatron", "path": "a"}),
        ("a.npy", "b", {"name": "tokens", "path": "a.npy"}),
        ("a.npz", "b", {"name": "tokens", "path": "a.npz"}),
        ("a.bin", "b", {"name": "tokens", "path": "a.bin"}),
        ("a", "b", {"name": "text", "path": "a"}),
        ("f/a", "b", {"name": "text", "path": "f"}),
        ("a.jsonl", "b", {"name": "text", "path": "a.jsonl"}),
        ("a.txt.gz", "b", {"name": "text", "path": "a.txt.gz"}),
        ("tokenizer.json", "b", {"name": "text", "path": "b", "tokenizer": "tokenizer.json"}),
        ("a.pt", "b", {"weights": "a.pt"}),
        ("model.safetensors", "b", {"weights": "."}),
        ("config.json", "b", {"weights": "."}),
    ],
)
def test_what_is_no_file_is_said_at_once(make: Callable[[Path], None], name: str, other: str, data: Section) -> None:
    with here():
        Path(other).write_bytes(IDX if other.endswith(".idx") else BIN)
        Path("f").mkdir()
        make(Path(name))
        outcome = started_from(data["weights"]) if "weights" in data else trained_on(data)[0]
        assert refused(outcome, "model" if "weights" in data else "data"), outcome


@pytest.mark.parametrize("path", [TOO_LONG, "a\0b", "\n", "~nobody-of-that-name/a", "a/" * 1500])
@pytest.mark.parametrize("name", ["megatron", "tokens", "text", "weights"])
def test_what_is_no_name_of_a_file_is_said(name: str, path: str) -> None:
    with here():
        if name == "weights":
            assert refused(started_from(path + ".pt"), "model")
        else:
            path = path + ".npy" if name == "tokens" else path
            assert refused(trained_on({"name": name, "path": path})[0])


# Token files


def npy(array: Any) -> bytes:
    stream = BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def with_header(header: str, content: bytes = BIN, version: int = 1, length: int | None = None) -> bytes:
    """An .npy with any header."""
    length = len(header) if length is None else length
    size = struct.pack("<H", length % 2**16) if version == 1 else struct.pack("<I", length % 2**32)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin-1") + content


HEADERS = st.builds(
    "{{'descr': {!r}, 'fortran_order': {}, 'shape': {!r}, }}\n".format,
    st.sampled_from(
        [
            *(
                "<u2",
                ">u2",
                "<i4",
                "<i8",
                "|u1",
                "|b1",
                "<f2",
                "<f8",
                "<c8",
                "|O",
                "<U3",
                "<M8[s]",
                "|V3",
                "<x9",
                "",
                "<u3",
            ),
            *([("a", "<u2"), ("b", "|O")], ("<u2", (9,)), [("a", "<u2", (2**40,))], [], None, 2**70),
        ]
    ),
    st.sampled_from(["False", "True", "None", "1"]),
    st.one_of(
        st.lists(st.one_of(st.sampled_from([*EXTREMES, 9, 63, True, "9", None]), st.integers(-2, 70)), max_size=3).map(
            tuple
        ),
        st.sampled_from([9, None, "()"]),
    ),
)
ODD_HEADERS = st.sampled_from(
    [
        "",
        "{",
        "(" * 5000,
        "[" * 3000 + "]" * 3000,
        "__import__('os').mkdir('made')",
        "{}",
        "{'descr': 1}",
        "\0" * 70,
        "-" * 9000,
    ]
)
ARRAYS = [
    npy(TOKENS),
    npy(TOKENS.reshape(MANY, -1)),
    npy(TOKENS.astype(">i4")),
    npy(np.asfortranarray(TOKENS.reshape(MANY, -1))),
]


@examples(25)
@given(
    content=st.one_of(
        st.sampled_from(ARRAYS).flatmap(
            lambda array: st.builds(damaged, st.just(array), st.lists(changes(len(array)), max_size=3))
        ),
        st.builds(with_header, st.one_of(HEADERS, HEADERS, ODD_HEADERS), version=st.sampled_from([1, 1, 2, 3, 9])),
        st.builds(with_header, HEADERS, length=st.sampled_from(EXTREMES), version=st.sampled_from([1, 2])),
    ),
    options=st.sampled_from([{}, {"vocab_size": 2**15}]),
)
def test_an_npy(content: bytes, options: Section) -> None:
    with here():
        Path("a.npy").write_bytes(content)
        outcome, samples = trained_on({"name": "tokens", "path": "a.npy", **options})
        assert settled(outcome), outcome
        assert not Path("made").exists()
        for sample in samples:  # one stored column by column, or with the high byte first, is as it was meant
            in_c = in_file(sample, content) or in_file(sample, content[::-1])
            assert in_c or all(in_file([token], content + content[::-1]) for token in sample), sample


@examples(14)
@given(st.data())
def test_an_npz(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([npz(a=TOKENS), npz(a=TOKENS, b=TOKENS[::-1]), npz(), npz(a=with_header("{}"))]))
    content = damaged(whole, data.draw(st.lists(changes(len(whole)), max_size=3)))
    with here():
        Path("a.npz").write_bytes(content)
        options = data.draw(st.sampled_from([{}, {"key": "a"}, {"key": "c\n"}]))
        outcome, _ = trained_on({"name": "tokens", "path": "a.npz", **options})
        assert settled(outcome), outcome


@examples(10)
@given(
    content=st.builds(damaged, st.just(BIN), st.lists(changes(len(BIN)), max_size=2)),
    dtype=st.sampled_from(["uint8", "uint16", "int32", "uint32"]),
)
def test_a_bin(content: bytes, dtype: str) -> None:
    with here():
        Path("a.bin").write_bytes(content)
        outcome, samples = trained_on({"name": "tokens", "path": "a.bin", "dtype": dtype})
        assert settled(outcome), outcome
        assert all(in_file(sample, content) for sample in samples)


class Malicious:
    """Unpickled without care, makes a folder `made`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def test_an_array_of_objects_is_not_unpickled() -> None:
    objects = np.array([Malicious()] * 70, dtype=object)
    with here():
        for name, content in {"a.npy": npy(objects), "a.npz": npz(a=objects), "b.npy": pickle.dumps(objects)}.items():
            Path(name).write_bytes(content)
            assert refused(trained_on({"name": "tokens", "path": name})[0])
            assert not Path("made").exists()
        np.load("b.npy", allow_pickle=True)
        assert Path("made").exists(), "or this test could not fail"


# Text


RECORDS = b'{"id": 1, "text": "some text of some length"}\n{"text": "and more", "id": [2]}\n' * 4


@examples(20)
@given(
    content=st.builds(damaged, st.just(RECORDS), st.lists(changes(len(RECORDS)), max_size=3)),
    suffix=st.sampled_from(["jsonl", "json", "json.gz", "jsonl.bz2", "jsonl.xz", "jsonl.zst", "parquet"]),
    compress=st.booleans(),
)
def test_records(content: bytes, suffix: str, compress: bool) -> None:
    make = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(suffix.rpartition(".")[2])
    with here():
        Path(f"a.{suffix}").write_bytes(make(content) if make and compress else content)
        for path in (f"a.{suffix}", "."):
            outcome, _ = trained_on({"name": "text", "path": path, "pattern": "a.*"})
            assert settled(outcome), outcome


def test_a_folder_of_strange_files_gives_the_text_that_is_in_it() -> None:
    with here():
        os.makedirs(b"f/\xff\xfe")
        Path(os.fsdecode(b"f/\xff\xfe/\xe9.txt")).write_bytes(bytes(range(256)))
        Path("f/empty").touch()
        pipe(Path("f/pipe"))
        endless(Path("f/zero"))
        link_to_nowhere(Path("f/broken"))
        Path("f/up").symlink_to("..")  # a folder within itself
        outcome, samples = trained_on({"name": "text", "path": "f"})
        assert outcome.code == 0 and outcome.well, outcome
        assert samples and all(in_file(sample, bytes(range(256)) + b"\0", "B") for sample in samples)


def test_a_folder_may_be_deep() -> None:
    with here():
        top = Path.cwd()
        for _ in range(1100):
            os.mkdir("f")
            os.chdir("f")
        Path("a.txt").write_bytes(bytes(range(200)))
        os.chdir(top)
        try:
            outcome, samples = trained_on({"name": "text", "path": "f"})
        finally:
            for depth in range(1100):  # what removes folders recurses
                os.rename("f", f"f{depth}")
                if depth < 1099:
                    os.rename(f"f{depth}/f", "f")
        assert outcome.code == 0 and outcome.well, outcome
        assert samples


@pytest.mark.parametrize("pattern", ["[", "[!]", "***", "(", "\\", "\0", "*.txt\n"])
def test_any_pattern_will_do(pattern: str) -> None:
    with here():
        Path("f").mkdir()
        Path("f/a.txt").write_bytes(bytes(range(200)))
        outcome, _ = trained_on({"name": "text", "path": "f", "pattern": pattern})
        assert settled(outcome), outcome


# Weights

SHAPES = {  # of a model with one layer of 4 channels, 1 head, 256 tokens
    "gpt_neox.embed_in.weight": (256, 4),
    "gpt_neox.layers.0.input_layernorm.weight": (4,),
    "gpt_neox.layers.0.input_layernorm.bias": (4,),
    "gpt_neox.layers.0.post_attention_layernorm.weight": (4,),
    "gpt_neox.layers.0.post_attention_layernorm.bias": (4,),
    "gpt_neox.layers.0.attention.query_key_value.weight": (12, 4),
    "gpt_neox.layers.0.attention.query_key_value.bias": (12,),
    "gpt_neox.layers.0.attention.dense.weight": (4, 4),
    "gpt_neox.layers.0.attention.dense.bias": (4,),
    "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": (16, 4),
    "gpt_neox.layers.0.mlp.dense_h_to_4h.bias": (16,),
    "gpt_neox.layers.0.mlp.dense_4h_to_h.weight": (4, 16),
    "gpt_neox.layers.0.mlp.dense_4h_to_h.bias": (4,),
    "gpt_neox.final_layer_norm.weight": (4,),
    "gpt_neox.final_layer_norm.bias": (4,),
    "lm_head.weight": (256, 4),
}
STATE = {name: torch.full(shape, 0.01) for name, shape in SHAPES.items()}


def started_from(weights: str) -> Outcome:
    """A run that starts from these weights."""
    model = {"name": "gpt_neox", "hidden_size": 4, "layers": 1, "heads": 1, "weights": weights, "vocab_size": 256}
    sections: Section = {**QUIET, "out": "run", "model": model, "budget": {"local_steps": 4}}
    Path("c.yaml").write_text(to_yaml(sections), encoding="utf-8")
    return ended("c.yaml")


def pt(state: Any, **options: Any) -> bytes:
    stream = BytesIO()
    torch.save(state, stream, **options)
    return stream.getvalue()


def safetensors(header: Any, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", (len(text) if length is None else length) % 2**64) + text + content


def as_safetensors() -> bytes:
    header, position = {}, 0
    for name, tensor in STATE.items():
        end = position + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    return safetensors(header, b"".join(tensor.numpy().tobytes() for tensor in STATE.values()))


WHOLE = {
    "a.pt": pt(STATE),
    "a.bin": pt(STATE, _use_new_zipfile_serialization=False),
    "a.npz": npz(**{name: tensor.numpy() for name, tensor in STATE.items()}),
    "a.safetensors": as_safetensors(),
}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_weights_as_they_are_are_trained_from(name: str) -> None:
    with here():
        Path(name).write_bytes(WHOLE[name])
        outcome = started_from(name)
        assert outcome.code == 0 and outcome.well, outcome


@examples(25)
@given(st.data())
def test_damaged_weights(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    size = len(WHOLE[name])
    beginning = changes(min(size, 2000))  # where headers are
    content = damaged(WHOLE[name], data.draw(st.lists(st.one_of(changes(size), beginning), min_size=1, max_size=3)))
    with here():
        Path(name).write_bytes(content)
        outcome = started_from(name)
        assert settled(outcome, "model.weights: "), outcome


TENSORS = st.sampled_from(
    [
        torch.zeros(3),
        torch.zeros(4, dtype=torch.int64),
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(4, dtype=torch.complex64),
        torch.zeros(4, dtype=torch.float64) + 1e300,
        torch.zeros(4, dtype=torch.bfloat16),
        torch.zeros(4, dtype=torch.float8_e4m3fn),
        torch.zeros(4, device="meta"),
        torch.zeros(4).to_sparse(),
        torch.zeros(1).expand(4),
        torch.full((4,), float("nan")),
        torch.full((4,), float("inf")),
        torch.zeros(0),
        torch.tensor(0.0),
    ]
)
VALUES = st.one_of(TENSORS, st.none(), st.integers(), st.text(max_size=5), st.just([torch.zeros(4)]), st.just({"a": 1}))


@examples(18)
@given(
    name=st.one_of(st.sampled_from(sorted(STATE)), st.text(max_size=9), st.integers(), st.none()),
    value=VALUES,
    legacy=st.booleans(),
)
def test_weights_with_another_value(name: Any, value: Any, legacy: bool) -> None:
    with here():
        Path("a.pt").write_bytes(pt({**STATE, name: value}, _use_new_zipfile_serialization=not legacy))
        outcome = started_from("a.pt")
        assert settled(outcome, "model.weights: "), outcome
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name in STATE and outcome.code == 0:
            assert bool(value.float().isfinite().all()), "what is no number is refused"


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**31, 2**60, 2**63, 2**64 - 1])
def test_a_safetensors_header_of_any_length(length: int) -> None:
    with here():
        Path("a.safetensors").write_bytes(safetensors(b"{}", length=length))
        assert refused(started_from("a.safetensors"), "model.weights: ")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_weights_is_not_executed(legacy: bool) -> None:
    with here():
        for value in (Malicious(), {**STATE, "a": Malicious()}):
            for content in (pt(value, _use_new_zipfile_serialization=not legacy), pickle.dumps(value)):
                Path("a.pt").write_bytes(content)
                assert refused(started_from("a.pt"), "model.weights: ")
                assert not Path("made").exists()
        pickle.loads(content)
        assert Path("made").exists(), "or this test could not fail"


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [
        "model_type",
        "hidden_act",
        "vocab_size",
        "num_attention_heads",
        "rope_parameters",
        "rope_scaling",
        "rotary_pct",
        "rotary_emb_base",
        "layer_norm_eps",
        "use_parallel_residual",
    ]
)
TEXTS = st.one_of(
    JSON.map(json.dumps),
    st.dictionaries(KEYS, JSON, max_size=2).map(json.dumps),
    st.sampled_from(
        ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"a": ' + "1" * 5000 + "}", "", "\ufeff{}", "\ud800", "nan"]
    ),
)


@examples(14)
@given(TEXTS)
@example('{"rope_parameters": 1}')
def test_a_config_json(text: str) -> None:
    with here():
        Path("model.pt").write_bytes(WHOLE["a.pt"])
        Path("config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        outcome = started_from(".")
        assert settled(outcome, "model."), outcome


@examples(10)
@given(
    st.one_of(
        TEXTS,
        st.dictionaries(
            st.text(max_size=3),
            st.sampled_from(
                ["x.bin", "", ".", "..", "/dev/zero", "/dev/stdin", "a\0b", TOO_LONG, 3, None, "x.bin/x", "pipe.bin"]
            ),
            min_size=1,
            max_size=3,
        ).map(lambda places: json.dumps({"weight_map": places})),
    )
)
def test_an_index_of_shards(text: str) -> None:
    with here():
        Path("x.bin").write_bytes(WHOLE["a.bin"])
        pipe(Path("pipe.bin"))
        Path("pytorch_model.bin.index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        outcome = started_from(".")
        assert settled(outcome, "model."), outcome


# More than there is memory for


def test_text_larger_than_the_free_memory_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halos.data.memory.available", lambda: 2**20)
    with here() as folder:
        (folder / "large.txt").touch()
        os.truncate(folder / "large.txt", 2**40)  # a hole: it takes no room on the disk
        (folder / "c.yaml").write_text(to_yaml(QUIET | {"data": {"name": "text", "path": "large.txt"}}))
        outcome = ended("c.yaml")
    said = "error: data.path: 'large.txt' (1 files) takes 1024.0 GiB of memory, 1.0 MiB are free\n"
    assert outcome.refused and outcome.err == said


def test_an_archive_that_unpacks_to_more_than_the_free_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halos.data.memory.available", lambda: 2**16)
    with here() as folder:
        np.savez_compressed(folder / "zeros.npz", tokens=np.zeros((2**13, LENGTH + 1), np.uint16))
        assert (folder / "zeros.npz").stat().st_size < 2**12  # compressed, it is next to nothing
        data = {"name": "tokens", "path": "zeros.npz", "sequence_length": LENGTH, "vocab_size": 4}
        (folder / "c.yaml").write_text(to_yaml(QUIET | {"data": data}))
        outcome = ended("c.yaml")
    said = "error: data.path: 'tokens' in 'zeros.npz' takes 0.1 MiB of memory, 0.1 MiB are free\n"
    assert outcome.refused and outcome.err == said
