"""The model that is only a size."""

from __future__ import annotations

import pytest

from halos.errors import ConfigError, UserError
from halos.models.sized import Sized
from halos.values.params import Layout


def test_a_model_that_is_only_a_size_has_shapes_but_cannot_be_built() -> None:
    model = Sized(parameters=405_000_000_000)
    assert Layout(model.shapes(None)).size == 405_000_000_000
    with pytest.raises(UserError, match=r"405,000,000,000 parameters.*executor.name=timing"):
        model.build(None, seed=0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parameters": 0}, "parameters: 0 is not a positive number"),
        ({"parameters": 1, "wire_bytes": 0}, "wire_bytes: 0 is not a positive number"),
    ],
)
def test_a_size_is_positive(fields: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Sized(**fields)
    assert str(refused.value) == said
