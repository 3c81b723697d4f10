"""Comments beside fields, as what the fields mean."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos.config.comments import meanings


def test_a_class_without_source_has_keys_without_meanings() -> None:
    namespace: dict[str, type] = {}
    exec("class Nowhere:\n    size: int = 1  # of it\n", namespace)
    assert meanings(namespace["Nowhere"]) == {}


class Bare:
    """Has a comment in its body, and no field."""

    # nothing to say


@dataclass
class Pace:
    """How fast."""

    hertz: float = 2.0  # steps a second
    # counted from the start,
    # not from the last stop
    after: int = 0
    said: str = "a # in a text"
    seconds: list[float] = field(
        default_factory=lambda: [1.0],  # each of them
    )


@dataclass
class Faster(Pace):
    """Says anew what it changes, and what it does not say means what it did."""

    hertz: float = 3.0
    after: int = 1  # from the last stop


def test_a_comment_beside_a_field_or_right_above_it_is_its_meaning() -> None:
    assert meanings(Pace) == {
        "hertz": "steps a second",
        "after": "counted from the start, not from the last stop",
        "seconds": "each of them",
    }


def test_a_class_may_say_anew_what_its_bases_fields_mean() -> None:
    assert meanings(Faster) == {
        "hertz": "steps a second",
        "after": "from the last stop",
        "seconds": "each of them",
    }


def test_a_comment_beside_no_field_is_nobodys() -> None:
    assert meanings(Bare) == {}
