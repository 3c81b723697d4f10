"""What components may have beside what they must is declared on one page, and nothing else is asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from halos.plugins.optional import MAY, NAMES, call, has, names
from halos.plugins.registry import KINDS, Plugins

ROOT = Path(__file__).parents[2]
# What is looked up by name and is nothing of a component's: of errors, libraries, modules, pluggy, coroutines, tensors,
# datasets, tokenizers and corpora; how many threads and processes an executor's configuration asks for.
OTHERS = {
    "strerror",
    "CSafeLoader",
    "CSafeDumper",
    "__file__",
    "variable",
    "halos_impl",
    "__wrapped__",
    "cr_await",
    "cr_frame",
    "folder",
    "detach",
    "__len__",
    "__getitem__",
    "encode_batch_fast",
    "bytes_per_token",
    "tokenizer",
    "sched_getaffinity",
    "memfd_create",
    "posix_fallocate",
    "MADV_REMOVE",
    "threads",
    "processes",
}


def test_every_kind_is_one() -> None:
    assert MAY.keys() <= KINDS.keys()


def test_what_is_asked_for_by_name_is_declared() -> None:
    asked = {
        node.args[1].value
        for file in (ROOT / "halos").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr", "has", "call")
        and isinstance(node.args[1], ast.Constant)
    }
    assert asked - OTHERS - {"__dict__"} <= NAMES


@pytest.mark.parametrize("kind", MAY)
def test_each_is_documented_with_its_kind(kind: str) -> None:
    text = (ROOT / "docs/reference/plugins.md").read_text(encoding="utf-8").split(f"\n### {kind}\n")[1].split("\n#")[0]
    assert [name for name in names(kind) if f"`{name}" not in text] == []


def test_what_must_be_there_is_not_optional() -> None:
    for kind, may in MAY.items():
        assert not names(kind) & vars(KINDS[kind][0]).keys(), may


def test_some_of_each_is_in_use() -> None:
    """By what halos brings; a plugin brings the rest."""
    components = Plugins().components
    for kind, name in (
        ("policy", "check"),
        ("executor", "step"),
        ("network model", "all_gather"),
        ("model", "wire_bytes"),
    ):
        assert any(hasattr(each.cls, name) for each in components[kind].values()), (kind, name)


class Learner:
    prepare = None

    def connect(self, cluster: str) -> str:
        return f"to {cluster}"


def test_a_method_that_is_there_is_called() -> None:
    assert call(Learner(), "connect", "two workers") == "to two workers"
    assert has(Learner(), "connect")


def test_one_that_is_not_there_is_left_out() -> None:
    assert call(Learner(), "report") is None
    assert not has(Learner(), "prepare"), "None is no method"


def test_one_that_is_not_declared_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="conect is not declared here"):
        call(Learner(), "conect", "two workers")
