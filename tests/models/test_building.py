"""Modules from configurations: the seed decides, shapes cost nothing, and what cannot be trained is refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import pytest
import torch
from torch import nn

from halos.errors import UserError
from halos.models.building import built, refuse_other_shapes, refuse_unlike, shapes_of, trained


@dataclass
class Made:
    """A model whose module is made by a function."""

    make: Callable[[], Any]

    def build(self, vocab_size: Optional[int], seed: int) -> Any:
        return self.make()


def tied() -> nn.Module:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    return module


def frozen() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    return module


def test_weights_follow_from_the_seed_and_the_global_generators_are_left_alone() -> None:
    draws = [lambda: torch.rand(1).item(), random.random, np.random.rand]
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = [draw() for draw in draws]
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    one, same, other = (built(Made(lambda: nn.Linear(3, 2)), None, seed).weight for seed in (1, 1, 2))
    assert [draw() for draw in draws] == expected
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_shapes_are_those_of_a_module_for_which_nothing_is_allocated() -> None:
    huge = Made(lambda: nn.Linear(10**7, 10**7))  # 400 TB
    assert shapes_of(huge, None) == {"weight": (10**7, 10**7), "bias": (10**7,)}


def test_shapes_leave_out_what_is_frozen_and_have_what_is_tied_once() -> None:
    assert shapes_of(Made(tied), None) == {"0.weight": (5, 3)}
    assert shapes_of(Made(frozen), None) == {"1.weight": (1, 3), "1.bias": (1,)}


def test_a_model_that_looks_at_numbers_is_built_to_know_its_shapes() -> None:
    def make() -> nn.Module:
        return nn.Linear(int(torch.tensor(4.0)), 2)  # a meta tensor has no number

    assert shapes_of(Made(make), None) == {"weight": (2, 4), "bias": (2,)}


@dataclass
class Saying(Made):
    """A model that says its shapes, whatever it makes."""

    said: Any = None

    def shapes(self, vocab_size: Optional[int]) -> Any:
        return self.said


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (None, "shapes() returns None; it should be a name and a shape for every tensor"),
        ({}, "shapes() returns {}; it should be a name and a shape for every tensor"),
        (
            [("weight", (2, 3))],
            "shapes() returns [('weight', (2, 3))]; it should be a name and a shape for every tensor",
        ),
        ({"weight": (-2, 3)}, "shapes() says (-2, 3) of weight, which is no shape: a tuple of whole numbers"),
        ({"weight": (2.0, 3)}, "shapes() says (2.0, 3) of weight, which is no shape: a tuple of whole numbers"),
        ({"weight": 6}, "shapes() says 6 of weight, which is no shape: a tuple of whole numbers"),
    ],
)
def test_shapes_that_are_none_are_told_in_one_line_that_names_the_model(said: Any, problem: str) -> None:
    with pytest.raises(UserError) as refused:
        shapes_of(Saying(lambda: nn.Linear(3, 2), said), None)
    assert str(refused.value).startswith("Saying (") and str(refused.value).endswith(f"): {problem}")


def test_shapes_that_are_not_what_is_built_are_refused_also_where_nothing_is_trained() -> None:
    huge, good = (lambda: nn.Linear(10**7, 10**7)), {"weight": (10**7, 10**7), "bias": (10**7,)}
    refuse_unlike(Saying(huge, good), good, None)
    bad = good | {"bias": (5,)}
    with pytest.raises(UserError, match=r"\): shapes\(\) says \[5\] of bias, but build\(\) makes it \[10000000\]$"):
        refuse_unlike(Saying(huge, bad), bad, None)
    refuse_unlike(Saying(lambda: 1 / 0, bad), bad, None)  # one that cannot be built has only a size


def shared() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight.data = module[0].weight.data
    return module


def also_a_buffer() -> nn.Module:
    module = nn.Linear(2, 2)
    module.register_buffer("average", module.weight.detach())
    return module


def complex_one() -> nn.Module:
    module = nn.Linear(2, 2)
    module.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    return module


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: nn.Linear(2, 2).requires_grad_(False), "all its parameters are frozen"),
    (nn.ReLU, "it has no parameters; nothing could be trained"),
    (lambda: nn.LazyLinear(2), "weight has no shape yet (a lazy module); build it with its sizes"),
    (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()),
        "1.weight is torch.float64, but 0.weight is torch.float32; what is trained must be of one type (train.precision"
        " computes in a lower one)",
    ),
    (complex_one, "phase is torch.complex64; what is trained must be real floating-point numbers"),
    (shared, "0.weight and 1.weight share memory but are two tensors; tie weights by one and the same Parameter"),
    (also_a_buffer, "average and weight share memory but are two tensors; tie weights by one and the same Parameter"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(UserError) as refused:
        trained(make())
    assert str(refused.value) == said


def test_frozen_parameters_may_be_of_any_type_and_views_of_one_storage_may_lie_side_by_side() -> None:
    module = nn.Sequential(nn.Linear(2, 2).half().requires_grad_(False), nn.Linear(2, 2))
    assert list(trained(module)) == ["1.weight", "1.bias"]
    both = torch.zeros(8)
    module = nn.ParameterDict({"a": nn.Parameter(both[:4]), "b": nn.Parameter(both[4:])})
    assert list(trained(module)) == ["a", "b"]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"0.weight": (3, 2)}, "shapes() says [3, 2] of 0.weight, but build() freezes it"),
        ({"1.weight": (3, 1), "1.bias": (1,)}, "shapes() says [3, 1] of 1.weight, but build() makes it [1, 3]"),
        ({"1.weight": (1, 3)}, "shapes() does not name 1.bias, but build() makes it [1]"),
        (
            {"1.weight": (1, 3), "1.bias": (1,), "2.bias": (1,)},
            "shapes() says [1] of 2.bias, but build() makes no such parameter",
        ),
        (
            {"1.bias": (1,), "1.weight": (1, 3)},
            "shapes() has 1.bias where build() has 1.weight: the order must be the same",
        ),
    ],
)
def test_shapes_that_differ_from_the_module_are_refused_by_name(said: Any, problem: str) -> None:
    with pytest.raises(UserError) as refused:
        refuse_other_shapes(said, frozen())
    assert str(refused.value) == problem


def test_a_build_that_fails_or_gives_no_module_is_told_in_one_line_with_its_place() -> None:
    with pytest.raises(
        UserError, match=r"^Made \(.*test_building.py\): build\(\) returns int, which is no torch.nn.Mod"
    ):
        built(Made(lambda: 3), None, 0)
    with pytest.raises(
        UserError, match=r"^Made \(.*\) cannot be built: ZeroDivisionError: .* \(.*test_building.py:\d+\)$"
    ):
        built(Made(lambda: nn.Linear(1 // 0, 2)), None, 0)
