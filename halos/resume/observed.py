"""What observers keep in a checkpoint: taken from those that have a `state`, and given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import torch

from halos.errors import UserError, in_a_line
from halos.plugins.optional import call, has

PLAIN = (type(None), bool, int, float, str)  # and tensors, exactly: heirs would be read as something else, or not


def states(observers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of each that has one, by name. TypeError if a checkpoint could not be read with it."""
    kept = {name: call(observer, "state") for name, observer in observers.items() if has(observer, "state")}
    for name, state in kept.items():
        if type(state) is not dict:
            raise TypeError(f"observers.extra.{name}: its state() is a {type(state).__name__}, not a dictionary")
        strange = _strange(state)
        if strange is not None:
            raise TypeError(
                f"observers.extra.{name}: its state() holds a {type(strange).__name__}; a checkpoint holds"
                " dictionaries, lists, tuples, numbers, texts, true, false, null and tensors"
            )
    return kept


def restore(observers: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """Give back what `states` returned, to those that are still there. Raises UserError if one cannot go on from it."""
    for name, observer in observers.items():
        if name in kept:
            try:
                call(observer, "restore", kept[name])
            except Exception as error:
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                raise UserError(
                    f"the run cannot be resumed: observers.extra.{name} cannot go on from what it saved:"
                    f" {kind}{in_a_line(error)}"
                ) from error


def _strange(value: Any) -> Optional[Any]:
    """Return what is not plain in `value`; None if all is."""
    if type(value) in (dict, list, tuple):
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        return next((found for each in inside if (found := _strange(each)) is not None), None)
    return None if type(value) in (*PLAIN, torch.Tensor) else value
