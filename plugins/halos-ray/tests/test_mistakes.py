"""What is said to a mistake in this package's sections: mistakes.md, row by row; and where Ray is not installed."""

from __future__ import annotations

import sys

import pytest

from halos import UserError
from halos.testing import record, tiny
from halos.testing.mistakes import MistakeTable


class TestMistakes(MistakeTable):
    plugins = ("halos_ray",)


def test_without_ray_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # an import fails as if there were none
    with pytest.raises(UserError) as said:
        record(tiny(executor={"name": "ray"}))
    assert str(said.value) == "executor ray: Ray is not installed; pip install 'ray>=2.50'"
