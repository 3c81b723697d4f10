"""Parameters are values."""

from __future__ import annotations

import math

import pytest
import torch

from halos.values.params import Layout, Params, mean

LAYOUT = Layout({"bias": (2,), "weight": (2, 2)})


def params(*numbers: float) -> Params:
    return Params(LAYOUT, torch.tensor(numbers, dtype=torch.float32))


def test_decayed_tensors_lie_first_and_are_one_slice() -> None:
    assert list(LAYOUT.shapes) == ["weight", "bias"]
    assert (LAYOUT.decayed, LAYOUT.size) == (4, 6)
    named = Params.of({"bias": torch.tensor([5.0, 6.0]), "weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, LAYOUT)
    assert named.flat is not None and named.flat.tolist() == [1, 2, 3, 4, 5, 6]
    assert named.tensors()["weight"].tolist() == [[1, 2], [3, 4]]


def test_arithmetic_returns_new_parameters_and_leaves_the_old_ones_alone() -> None:
    a, b = params(1, 2, 3, 4, 5, 6), params(1, 1, 1, 1, 1, 1)
    for result, expected in [
        (a + b, [2, 3, 4, 5, 6, 7]),
        (a - b, [0, 1, 2, 3, 4, 5]),
        (2 * a, [2, 4, 6, 8, 10, 12]),
        (a / 2, [0.5, 1, 1.5, 2, 2.5, 3]),
        (-a, [-1, -2, -3, -4, -5, -6]),
        (a.zeros(), [0] * 6),
        (mean([a, b, b]), [1, 4 / 3, 5 / 3, 2, 7 / 3, 8 / 3]),
    ]:
        assert result.flat is not None and result.flat.tolist() == pytest.approx(expected)
    assert a.flat is not None and a.flat.tolist() == [1, 2, 3, 4, 5, 6]


def test_norms_and_products_are_the_euclidean_ones() -> None:
    assert params(3, 4, 0, 0, 0, 0).norm() == 5.0
    assert params(1, 2, 3, 0, 0, 0).dot(params(4, 5, 6, 0, 0, 0)) == 32.0


def test_a_fragment_is_taken_out_and_put_back() -> None:
    a, fragment = params(1, 2, 3, 4, 5, 6), (slice(1, 2), slice(4, 6))
    part = a[fragment]
    assert part.size == 3 and part.flat is not None and part.flat.tolist() == [2, 5, 6]
    back = a.replace(fragment, 10 * part)
    assert back.flat is not None and back.flat.tolist() == [1, 20, 3, 4, 50, 60]
    with pytest.raises(ValueError, match="2 parameters for a fragment of 3"):
        a.replace(fragment, a[(slice(0, 2),)])
    with pytest.raises(IndexError, match="4:9"):
        a[(slice(4, 9),)]


def test_a_part_knows_where_it_lies_in_the_whole() -> None:
    fragment = (slice(1, 2), slice(3, 6))
    part = LAYOUT.part(fragment)
    assert LAYOUT.fragment is None and part.fragment == fragment
    # Of that part, [1, 3, 4, 5] of the whole, its places 0 to 2 and 3: so 1, 3 and 5.
    assert part.part((slice(0, 2), slice(3, 4))).fragment == (slice(1, 2), slice(3, 4), slice(5, 6))


def test_hollow_parameters_count_but_never_call_torch() -> None:
    def explode(*_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("called")

    hollow, full = Params(LAYOUT, None), params(1, 2, 3, 4, 5, 6)
    for result in (
        hollow + full,
        full - hollow,
        hollow * 2,
        hollow.map(explode),
        Params.combine(explode, full, hollow),
    ):
        assert result.hollow and result.size == 6
    assert hollow[(slice(0, 3),)].size == 3
    assert math.isnan(hollow.norm()) and math.isnan(hollow.dot(full))
    with pytest.raises(ValueError, match="hollow"):
        hollow.tensors()


def test_serial_numbers_are_given_in_creation_order_within_one_layout() -> None:
    layout = Layout({"a": (1,)})
    first = Params(layout, None)
    second = first + first
    assert (first.serial, second.serial, (second - first).serial) == (0, 1, 2)
    assert first[(slice(0, 1),)].serial == 3
    assert first.shell().serial == 0  # no new parameters, only a stand-in


def test_a_shell_keeps_no_tensor() -> None:
    a = params(1, 2, 3, 4, 5, 6)
    a.versions = {"global": 3}
    shell = a.shell()
    assert shell.hollow and shell.serial == a.serial and shell.versions == {"global": 3}


def test_different_layouts_and_shapes_do_not_mix() -> None:
    with pytest.raises(ValueError, match="different layouts: 6, 1"):
        params(1, 2, 3, 4, 5, 6) + Params(Layout({"a": (1,)}), torch.zeros(1))
    with pytest.raises(ValueError, match=r"shape \(2,\) for 6"):
        Params(LAYOUT, torch.zeros(2))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), not \(2,\)"):
        Params.of({"bias": torch.zeros(3), "weight": torch.zeros(2, 2)}, LAYOUT)
