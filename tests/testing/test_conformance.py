"""All that is built in, and a plugin by somebody else, does what its kind must do (plugins/ have their own suites)."""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from halos.plugins.registry import Plugins
from halos.testing.conformance import (
    AggregatorConformance,
    CodecConformance,
    ComputeConformance,
    DataConformance,
    ExecutorConformance,
    InnerOptimizerConformance,
    MergeRuleConformance,
    ModelConformance,
    NetworkConformance,
    PolicyConformance,
    StepsConformance,
    WeightsConformance,
)
from tests.keeping import HERE

ROOT = Path(__file__).parents[2]
MODULES = [ROOT / "third_party/example-variant/noloco_gossip.py"]
BUILT_IN = {each.cls.__module__ for known in Plugins().components.values() for each in known.values()
            if each.origin == "halos"}  # fmt: skip
PLUGINS = [*sorted(BUILT_IN), *(module.stem for module in MODULES)]
sys.path.extend(str(module.parent) for module in MODULES if str(module.parent) not in sys.path)


class TestPolicies(PolicyConformance):
    plugins = PLUGINS
    sections = (
        {
            "name": "async_local_sgd",
            "outer": {"name": "delayed_nesterov", "lr": 0.7, "beta": 0.5, "buffer": 4},
        },
        {
            "name": "halos",
            "outer": {"name": "delayed_nesterov", "lr": 1.0, "beta": 0.5, "buffer": 2},
            "local": {"name": "delayed_nesterov", "lr": 1.0, "beta": 0.5, "buffer": 4},
            "local_updates": 4,
        },
    )

    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> Optional[float]:
        return rounds * (compute + all_reduce) if section["name"] == "diloco" else None


class TestMergeRules(MergeRuleConformance):
    plugins = PLUGINS
    sections = ({"name": "adam", "lr": 0.01},)

    def tolerance(self, section: dict[str, Any]) -> float:
        return 1e-3 if section["name"] == "adam" else 1e-6

    def elementwise(self, section: dict[str, Any]) -> bool:
        return section["name"] in ("sgd", "nesterov", "delayed_nesterov", "adam")


class TestNetworks(NetworkConformance):
    plugins = PLUGINS
    sections = (
        {"name": "matrix", "bandwidth_gbps": [[100, 1, 2], [0.5, 100, 1], [0.3, 1, 100]], "latency_ms": 40},
        {"name": "matrix", "bandwidth_gbps": float("inf")},
        {"name": "matrix", "bandwidth_gbps": [[100, 1, 2], [0.5, 100, 1], [0.3, 1, 100]], "return_path": "forward"},
        {"name": "shared_links", "up_gbps": 10, "down_gbps": [1, 2, 3], "latency_ms": 40},
        {
            "name": "shared_links",
            "up_gbps": [1, 10, 1],
            "worker_up_gbps": 0.5,
            "backbone": [{"name": "cable", "gbps": 2, "ways": [[0, 1], [1, 2]]}],
            "background": [{"link": "cable", "share": 0.5, "at_seconds": 2}],
            "changes": [
                {"time_s": 3, "link": "region-1.up", "gbps": 0},
                {"time_s": 9, "link": "region-1.up", "gbps": 9},
            ],
            "changes_repeat_seconds": 60,
            "jitter_ms": 5,
            "collectives": "hierarchical",
        },
        {"name": "shared_links", "inside_gbps": 1, "collectives": "tree"},
    )


class TestSteps(StepsConformance):
    plugins = PLUGINS


class TestWeights(WeightsConformance):
    plugins = PLUGINS


class TestAggregators(AggregatorConformance):
    plugins = PLUGINS


class TestCompute(ComputeConformance):
    plugins = PLUGINS


class TestCodecs(CodecConformance):
    plugins = PLUGINS


class TestInnerOptimizers(InnerOptimizerConformance):
    plugins = PLUGINS


class TestInnerOptimizersWithOptions(InnerOptimizerConformance):
    sections = (
        {"name": "adamw", "betas": [0.5, 0.7], "weight_decay": 0.0},
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.5},
    )


class TestModels(ModelConformance):
    plugins = PLUGINS
    sections = (
        {"name": "gpt_neox", "hidden_size": 16, "layers": 2, "heads": 2},
        {"name": "sized", "parameters": 10},
        {"name": "quadratic", "noise": 0.5},
    )


class TestModelsThatKeepSomething(ModelConformance):
    plugins = (HERE,)
    sections = ({"name": "keeping", "dropout": 0.5, "noise": 0.1},)


class TestData(DataConformance):
    plugins = PLUGINS
    sections = (
        {"name": "text", "path": "folder"},
        {"name": "tokens", "path": "tokens.npy"},
        {"name": "megatron", "path": "corpus"},
        {"name": "text", "path": "lines.jsonl", "tokenizer": "tokenizer.json", "cache": "kept"},
        {"name": "megatron", "path": "documents", "sequence_length": 7, "epochs": 2},
    )

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the sections name: each 40 samples or so of 8 + 1 tokens."""
        monkeypatch.chdir(tmp_path)
        tokens = np.arange(40 * 9, dtype=np.uint16) % 50
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/one.txt").write_bytes(tokens.astype(np.uint8).tobytes())
        (tmp_path / "folder/two.txt").write_bytes(b"something else")
        np.save("tokens.npy", tokens)
        (tmp_path / "corpus.bin").write_bytes(tokens.tobytes())
        header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 40, 41)
        lengths, offsets = np.full(40, 9, np.int32), np.arange(40, dtype=np.int64) * 18
        (tmp_path / "corpus.idx").write_bytes(
            header + lengths.tobytes() + offsets.tobytes() + np.arange(41, dtype=np.int64).tobytes()
        )
        for suffix in ("bin", "idx"):
            shutil.copy(f"corpus.{suffix}", f"documents.{suffix}")
        (tmp_path / "lines.jsonl").write_text('{"text": "a b a a"}\n' * 40)
        letters = Tokenizer(models.WordLevel({"a": 0, "b": 1, " ": 2}, unk_token="a"))
        letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        letters.save("tokenizer.json")


class TestExecutors(ExecutorConformance):
    plugins = PLUGINS
