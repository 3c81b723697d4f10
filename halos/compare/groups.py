"""Groups: the runs that differ in their seed only, and what tells one group from another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from halos.errors import UserError, did_you_mean, from_here

if TYPE_CHECKING:
    from halos.reading.run import RunRecords

# What of a configuration changes nothing of what a run is, and what names it.
APART = re.compile(r"(name|out|plugins|labels|observers|checkpoint|executor\.device|executor\.threads)(\.|$)")
SEED = re.compile(r"(.*\.)?(seed|split_seed)$")
ABSENT = "-"
BARE = {"none", "null", "true", "false", "yes", "no", "on", "off", ABSENT}  # say nothing without their key
LONGEST = 24  # characters of a value in a label


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    label: str  # what tells it from the other groups, for example `async, fixed`
    values: dict[str, str]  # the same, by key
    runs: dict[int, RunRecords]  # by seed, ascending


@dataclass(frozen=True)
class _Known:
    """A run, and all that may tell it from others, as texts by key."""

    run: RunRecords
    labels: dict[str, str]
    keys: dict[str, str]

    def value(self, key: str) -> str:
        return self.labels.get(key, self.keys.get(key, ABSENT))

    def values(self, keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self.value, keys))


def grouped(runs: Sequence[RunRecords], by: Optional[Sequence[str]] = None) -> tuple[list[Group], list[str]]:
    """The runs in groups, in the order in which each group's first run is given; and a line on each that is in none.

    What tells groups apart is `by`, labels or keys of configurations; or else all labels but the seed, if every run has
    some; or else the keys in which configurations differ, but for seeds, names and what changes no result. Two runs of
    one group and seed are told apart by the keys in which they differ, too; if there are none, the second is left out.
    Raises UserError for an unknown key, and for runs that `by` does not tell apart.
    """
    known = [_Known(run, _labels(run), dict(_leaves(run.config))) for run in runs]
    seed = _seed_key(known)
    differing = _differing(known, seed)
    if by is not None:
        _check(by, known)
        keys = list(by)
    elif all(each.labels for each in known):
        keys = [key for key in dict.fromkeys(key for each in known for key in each.labels) if not SEED.match(key)]
    else:
        keys = _telling(known, differing)
    remarks = []
    while True:
        clash = _clash(known, keys, seed)
        if clash is None:
            break
        first, second = clash
        apart = [key for key in differing if first.value(key) != second.value(key)]
        where = f"{from_here(second.run.folder)} and {from_here(first.run.folder)}"
        if not apart:
            remarks.append(f"{from_here(second.run.folder)}: the same run as {from_here(first.run.folder)}; left out")
            known.remove(second)
        elif by is not None:
            raise UserError(f"--by: does not tell {where} apart, which differ in {', '.join(apart[:5])}")
        else:
            keys = [*keys, _telling([first, second], apart)[0]]
    return _made(known, keys, seed), remarks


def _made(known: Sequence[_Known], keys: Sequence[str], seed: str) -> list[Group]:
    members: dict[tuple[str, ...], dict[int, RunRecords]] = {}
    for each in known:
        members.setdefault(each.values(keys), {})[_seed(each, seed)] = each.run
    shown = [key for index, key in enumerate(keys) if len({values[index] for values in members}) > 1]
    texts = {key: _texts(key, shown, list(dict.fromkeys(each.value(key) for each in known))) for key in shown}
    groups: list[Group] = []
    for values, runs in members.items():
        named = dict(zip(keys, values))
        label = ", ".join(texts[key][named[key]] for key in shown)
        if not label:
            label = ", ".join(values) or next(iter(runs.values())).name
        if any(label == group.label for group in groups):
            label += f" ({len(groups) + 1})"
        groups.append(Group(label, named, dict(sorted(runs.items()))))
    return groups


def _texts(key: str, keys: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """How labels say each of a key's values: with the key's last part, unless the value speaks for itself."""
    name = key.rpartition(".")[2]
    if any(other != key and other.rpartition(".")[2] == name for other in keys):
        name = ".".join(key.split(".")[-2:])
    tails = {value: value.rstrip("/").rpartition("/")[2] for value in values if "/" in value}
    if len(set(tails.values())) == len(tails):  # paths whose last parts differ
        values_as = {value: tails.get(value, value) for value in values}
    else:
        values_as = {value: value for value in values}
    made = {}
    for number, value in enumerate(values, 1):
        text = values_as[value]
        if len(text) > LONGEST or text[:1] in ("[", "{"):
            made[value] = f"{name} #{number}"
        elif text.lower() in BARE or _is_number(text):
            made[value] = f"{name} {text}"
        else:
            made[value] = text
    return made


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labels(run: RunRecords) -> dict[str, str]:
    return {str(key): _text(value) for key, value in run.labels.items()}


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _seed_key(known: Sequence[_Known]) -> str:
    """Which seed numbers the runs: the run's own, unless that is the same for all and a component's is not.

    A component that some have not has numbers for none: its seed tells who has it.
    """
    keys = dict.fromkeys(key for each in known for key in each.keys if SEED.match(key))
    values = {key: {each.value(key) for each in known} for key in ("seed", *keys)}
    varying = [key for key, several in values.items() if len(several) > 1 and ABSENT not in several]
    return varying[0] if varying else "seed"


def _seed(each: _Known, key: str) -> int:
    text = each.value(key)
    return int(text) if re.fullmatch(r"-?\d+", text) else -1


def _differing(known: Sequence[_Known], seed: str) -> list[str]:
    """The keys in which configurations differ; of seeds only those that do not go with `seed`."""
    keys = dict.fromkeys(key for each in known for key in each.keys if not APART.match(key))
    found = []
    for key in keys:
        if len({each.value(key) for each in known}) > 1:
            with_seed = len({each.values([seed, key]) for each in known}) == len({each.value(seed) for each in known})
            if not (SEED.match(key) and with_seed):
                found.append(key)
    return found


def _telling(known: Sequence[_Known], differing: Sequence[str]) -> list[str]:
    """As few of these keys as tell apart all that they do together: first names, then what most differs."""
    goal = len({each.values(differing) for each in known})
    order = sorted(differing, key=lambda key: (not key.endswith("name"), key.count(".")))
    chosen: list[str] = []

    def told(keys: Sequence[str]) -> int:
        return len({each.values(keys) for each in known})

    for key in (key for key in order if key.rpartition(".")[2] == "name"):
        if told([*chosen, key]) > told(chosen):
            chosen.append(key)
    while told(chosen) < goal:
        chosen.append(max(order, key=lambda key: told([*chosen, key])))  # the first of the best
    return chosen


def _clash(known: Sequence[_Known], keys: Sequence[str], seed: str) -> Optional[tuple[_Known, _Known]]:
    """Two runs of one group and seed; None if there are none."""
    seen: dict[tuple[str, ...], _Known] = {}
    for each in known:
        place = (*each.values(keys), each.value(seed))
        if place in seen:
            return seen[place], each
        seen[place] = each
    return None


def _check(by: Sequence[str], known: Sequence[_Known]) -> None:
    labels = dict.fromkeys(key for each in known for key in each.labels)
    keys = dict.fromkeys(key for each in known for key in each.keys)
    for key in by:
        if SEED.match(key) and key not in labels:
            raise UserError(f"--by: {key!r} is a seed; runs that differ in that only are taken together")
        if key not in labels and key not in keys:
            ends = [whole for whole in keys if whole.endswith(f".{key}")]
            hint = f" (did you mean {ends[0]!r}?)" if ends else did_you_mean(key, [*labels, *keys])
            there = f"; labels are: {', '.join(labels)}" if labels else ""
            raise UserError(f"--by: no run has a label or key {key!r}{hint}{there}")
