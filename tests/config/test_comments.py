"""Comments beside fields, as what the fields mean."""

from __future__ import annotations

from halos.config.comments import meanings


def test_a_class_without_source_has_keys_without_meanings() -> None:
    namespace: dict[str, type] = {}
    exec("class Nowhere:\n    size: int = 1  # of it\n", namespace)
    assert meanings(namespace["Nowhere"]) == {}
