"""Jobs in actors on two nodes: the bits of `inline`, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from halos.testing.conformance import ExecutorConformance

TWO = {"executor": {"name": "ray", "actors": 2}}


@pytest.mark.usefixtures("lasting")
class TestConformance(ExecutorConformance):
    plugins: ClassVar[Sequence[str]] = ["halos_ray"]
    sections = ({"name": "ray", "actors": 2},)
    tolerance = 0.0
