"""Resuming: which configuration a run goes on with, and what of it may have changed."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from halos.config.builder import path_fields
from halos.config.config import Config, resolved
from halos.config.layers import merge, overrides
from halos.config.references import escaped, interpolate
from halos.config.sections import to_sections
from halos.config.yaml_text import Section
from halos.errors import ConfigError, UserError, from_here, shown
from halos.plugins.registry import Plugins, versions
from halos.resume import checkpoint as checkpoints
from halos.resume.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

FREE = ("labels", "observers", "checkpoint", "executor.device", "executor.threads", "executor.processes")  # may change
# May grow.
LIMITS = tuple(
    f"budget.{key}" for key in ("local_steps", "tokens", "trained_steps", "trained_tokens", "simulated_hours")
)


def load_run(
    folder: Path, changes: Sequence[str], plugins: Sequence[str] = (), without: Sequence[str] = ()
) -> tuple[Config, Plugins, Checkpoint]:
    """The configuration of the run in `folder`, with `key=value` changes, and its newest intact checkpoint.

    UserError names what stands in the way: no checkpoint, a key that must not change, another version
    of a plugin or of halos.
    """
    if not os.path.isdir(folder):
        named = Path("runs") / folder
        hint = f" (did you mean {named}?)" if os.path.isdir(named) else ""
        raise UserError(f"--resume: {folder} is no run folder{hint}")
    if not any(os.path.lexists(folder / name) for name in ("checkpoints", "config.yaml")):
        raise UserError(f"--resume: {folder} is no run folder: there are no checkpoints in it, nor a config.yaml")
    checkpoint, damaged = checkpoints.newest(folder / "checkpoints")
    for problem in damaged:
        logger.warning("%s; going on from the checkpoint before it", problem)
    before = checkpoint.config
    _check_place(before)
    place = interpolate({"name": before["name"], "out": before["out"]})
    if not _same(Path("runs") / place["name"] if place["out"] is None else Path(place["out"]), folder):
        before = {**before, "out": escaped(str(folder))}  # it was moved
    section = merge(before, overrides(changes))
    if section["out"] != before["out"]:
        raise ConfigError("out", f"is {folder}, where the run is, and cannot become {shown(section['out'])}")
    config, found = resolved(section, plugins, without)
    sources = {"data": config.data, **{f"evaluate.sets.{name}": each for name, each in config.evaluate.sets.items()}}
    paths = [f"{key}.{name}" for key, source in sources.items() for name in path_fields(type(source))]
    free = (*FREE, *paths)  # the data's hash decides
    after = to_sections(config, found)
    if _alike(checkpoint.config, after, found):
        free = (*free, "executor")
    _check_keys(checkpoint.config, after, free)
    _check_versions(checkpoint.versions, versions(found, watching=False))
    return config, found, checkpoint


def _alike(before: Section, after: Section, plugins: Plugins) -> bool:
    """Whether the run goes on with another executor, or the same with other keys, which would have come to the same."""
    names = [str(each["executor"]["name"]) for each in (before, after)]
    said: list[Optional[str]] = [getattr(plugins.find("executor", name), "alike", None) for name in names]
    return any(said) and (said[0] or names[0]) == (said[1] or names[1])


def _check_place(before: Section) -> None:
    """Raise UserError unless a checkpoint's configuration says where the run is; the rest is checked later."""
    if not isinstance(before.get("name"), str) or not isinstance(before.get("out", 0), (str, type(None))):
        raise UserError("the run cannot be resumed: its checkpoint's configuration does not say where it is")


def _check_keys(before: Section, after: Section, free: Sequence[str]) -> None:
    ours, theirs = dict(_leaves(after)), dict(_leaves(before))
    for key in sorted({*ours, *theirs}, key=lambda key: (not key.endswith(".name"), key)):  # first the reason
        if ours.get(key) == theirs.get(key) or any(key == name or key.startswith(f"{name}.") for name in free):
            continue
        if key in LIMITS:
            if _limit(ours.get(key)) < _limit(theirs.get(key)):
                raise ConfigError(
                    key, f"{ours.get(key)} is less than the run's {shown(theirs.get(key))}; a budget may only grow"
                )
        elif key == "budget.target_loss":
            earlier = theirs.get(key)
            if ours.get(key) is not None and (earlier is None or ours[key] > earlier):
                raise ConfigError(
                    key, f"{ours[key]} is easier than the run's {shown(theirs.get(key))}; a budget may only grow"
                )
        elif key not in ("out", "plugins"):
            raise ConfigError(
                key,
                f"is {shown(theirs.get(key))} in this run and cannot become {shown(ours.get(key))}; what may change is"
                " the budget (to a larger one), labels, observers, checkpoint, executor.device, executor.threads,"
                " executor.processes and where the data lie",
            )


def _check_versions(before: dict[str, str], now: dict[str, str]) -> None:
    for name in sorted({*before, *now}):
        was, is_now = before.get(name), now.get(name)
        if was == is_now:
            continue
        if name.endswith(".py") and (is_now in before.values() or was in now.values()):
            continue  # the same file, elsewhere
        if name in ("python", "torch"):
            logger.warning("%s was %s and is %s now: what follows may differ in the last bits", name, was, is_now)
        elif name not in before:
            logger.warning("%s was not there when the run began", from_here(name))
        else:
            raise UserError(
                f"{from_here(name)} is {is_now or 'not installed'}, but the run was made with {was}:"
                " it would go on as another experiment"
            )


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _limit(value: Any) -> float:
    return math.inf if value is None else float(value)


def _leaves(section: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(section, dict) and section:
        for name, value in section.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, section
