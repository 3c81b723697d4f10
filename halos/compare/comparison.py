"""A comparison: groups of runs, whom each is held against, and what can be said of all of them at equal amounts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Optional

from halos.compare.comparable import diverged, losses_known, obstacles, progress, split_seed
from halos.compare.curve import Curve
from halos.compare.front import dominators
from halos.compare.groups import Group
from halos.compare.measures import measured
from halos.compare.prices import Prices
from halos.compare.statistics import Spread
from halos.compare.targets import Reached, Target
from halos.errors import UserError, did_you_mean, from_here

FRONT = ("final_loss", "simulated_seconds", "bytes", "dollars")  # what a Pareto front is of, as far as it is known

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Comparison:
    """What is known of groups of runs; numbers are by seed, so that they can be paired."""

    groups: Sequence[Group]
    against: Mapping[str, Group]  # by a group's label, its baseline; not there: it has none
    curves: Mapping[str, Mapping[int, Curve]]  # by label and seed; of the runs whose losses can be compared
    measures: Mapping[str, Mapping[int, Mapping[str, float]]]  # by label and seed
    remarks: Sequence[str]  # what cannot be compared, and what else is to be known, a line each
    called: str  # the baseline

    @staticmethod
    def of(
        groups: Sequence[Group], baseline: Optional[str] = None, prices: Optional[Prices] = None, wall: bool = False
    ) -> Comparison:
        """Read and measure the groups' runs. Raises UserError if no group is called as the `baseline`."""
        against = baselines(groups, baseline)
        remarks: list[str] = []
        first = next((group for group in groups if against.get(group.label) is group), groups[0])
        barred = obstacles(groups, first)
        count = sum(len(group.runs) for group in groups)
        all_alike = count == len(barred) > 1 and len({*barred.values()}) == 1
        curves: dict[str, dict[int, Curve]] = {}
        for group in groups:
            runs = {seed: run for seed, run in group.runs.items() if run.folder not in barred}
            curves[group.label] = {seed: Curve.of(run) for seed, run in runs.items()}
            for run in group.runs.values():
                state = progress(run)
                remarks += [f"{from_here(run.folder)}: {state}"] if state else []
                alone = run.folder in barred and not all_alike
                remarks += [f"{from_here(run.folder)}: {barred[run.folder]}"] if alone else []
        remarks += [f"each of the {count} runs: {next(iter(barred.values()))}"] if all_alike else []
        measures = {
            group.label: {seed: measured(run, prices, wall) for seed, run in group.runs.items()} for group in groups
        }
        remarks += _about_seeds(groups, barred)
        remarks += prices.unused([run for group in groups for run in group.runs.values()]) if prices else []
        return Comparison(groups, against, curves, measures, remarks, baseline or groups[0].label)

    @cached_property
    def shared_baseline(self) -> Optional[Group]:
        """The baseline, if it is one and the same for all."""
        (first, *others) = {id(group): group for group in self.against.values()}.values()
        return None if others or len(self.against) < len(self.groups) else first

    @cached_property
    def drawn(self) -> list[Group]:
        """The groups without the runs whose losses are of other samples than the others'."""
        runs = {
            group.label: {
                seed: run
                for seed, run in group.runs.items()
                if seed in self.curves[group.label] or diverged(run) or not losses_known(run)
            }
            for group in self.groups
        }
        return [replace(group, runs=runs[group.label]) for group in self.groups if runs[group.label]]

    def reached(self, of: str) -> float:
        """The largest amount of `of` (tokens, steps, seconds or bytes) at which every run can be read off; or NaN."""
        amounts = [curve.reach(of) for curves in self.curves.values() for curve in curves.values()]
        return min(amounts) if amounts and not any(map(math.isnan, amounts)) else math.nan

    def losses(self, group: Group, of: str, amount: float) -> dict[int, float]:
        """Losses after so much of `of`; without those that are not known, as of a run that is still before it."""
        found = {seed: curve.at(of, amount) for seed, curve in self.curves[group.label].items()}
        return {
            seed: loss
            for seed, loss in found.items()
            if not math.isnan(loss) and (amount <= self.curves[group.label][seed].reach(of) or self._over(group, seed))
        }

    def learned(self, group: Group, of: str, amount: float) -> dict[int, float]:
        """The same, without those of a model that nothing had been committed to yet."""
        curves = self.curves[group.label]
        losses = self.losses(group, of, amount)
        return {seed: loss for seed, loss in losses.items() if curves[seed].trained(of, amount)}

    def ended(self, group: Group, of: str, amount: float) -> bool:
        """Whether some run had ended before so much was spent: its final model is what there is then."""
        return any(curve.reach(of) < amount for curve in self.curves[group.label].values())

    def done(self, group: Group, of: str, amount: float) -> dict[int, float]:
        """The simulated seconds after which so much of `of` is seen to be spent; of those that ever spent it."""
        found = {seed: curve.when(of, amount) for seed, curve in self.curves[group.label].items()}
        return {seed: seconds for seed, seconds in found.items() if not math.isnan(seconds)}

    def reaching(self, group: Group, target: Target) -> Reached:
        """Which seeds reach the target, and what it takes them; a run that diverged does not."""
        baseline = self.against.get(group.label)
        theirs = self.curves[baseline.label] if baseline else {}
        spent, missed, running = {}, [], []
        for seed, run in group.runs.items():
            curve = self.curves[group.label].get(seed)
            loss = target.of(theirs.get(seed))
            if math.isnan(loss) or (curve is None and not diverged(run)):
                continue
            row = curve.first(loss) if curve is not None else None
            if row is None or curve is None:
                missed.append(seed)
                running += [] if self._over(group, seed) else [seed]
            else:
                spent[seed] = {name: float(values[row]) for name, values in curve.spent.items()}
        return Reached(spent, tuple(missed), tuple(running))

    def names(self, group: Group) -> list[str]:
        """The measures that the group's runs have."""
        return list(dict.fromkeys(name for run in self.measures[group.label].values() for name in run))

    def measure(self, group: Group, name: str) -> dict[int, float]:
        """What the group's runs came to, where it is known; a final loss only where it can be compared."""
        if name == "final_loss":
            return {seed: float(curve.loss[-1]) for seed, curve in self.curves[group.label].items()}
        found = {seed: each.get(name, math.nan) for seed, each in self.measures[group.label].items()}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    @cached_property
    def costs(self) -> tuple[tuple[str, ...], dict[str, list[float]], list[int]]:
        """What a Pareto front is of; by label, these means; and over which seeds (none: over each group's own).

        Of finished runs alone. Groups that lack a number which others have are not in it.
        """
        values = {
            group.label: {name: self._finished(group, self.measure(group, name)) for name in FRONT}
            for group in self.groups
        }
        kinds = tuple(name for name in FRONT if any(each[name] for each in values.values()))
        whole = {
            label: set.intersection(*(set(each[name]) for name in kinds)) if kinds else set()
            for label, each in values.items()
        }
        whole = {label: seeds for label, seeds in whole.items() if seeds}
        common = set.intersection(*whole.values()) if whole else set()
        means = {
            label: [Spread.of([values[label][name][seed] for seed in sorted(common or seeds)]).mean for name in kinds]
            for label, seeds in whole.items()
        }
        return kinds, means, sorted(common)

    @cached_property
    def dominated(self) -> dict[str, list[str]]:
        """By label, who is as good in all of `costs` and better in some."""
        return dominators(self.costs[1])

    def _finished(self, group: Group, values: BySeed) -> dict[int, float]:
        return {seed: value for seed, value in values.items() if group.runs[seed].finished is True}

    def _over(self, group: Group, seed: int) -> bool:
        """Whether a run goes on no more."""
        return group.runs[seed].finished is True or diverged(group.runs[seed])


def baselines(groups: Sequence[Group], name: Optional[str]) -> dict[str, Group]:
    """By label, whom each group is held against: the group called `name`, by default the first.

    If `name` is a value that several groups have, it is for each group the one of them that is like it in all else.
    """
    if name is None:
        return {group.label: groups[0] for group in groups}
    exact = [group for group in groups if group.label == name] or [
        group for group in groups if group.label.lower() == name.lower()
    ]
    having = exact or [group for group in groups if name in group.values.values()]
    if len(having) == 1:
        return {group.label: having[0] for group in groups}
    keys = [key for key in groups[0].values if {group.values[key] for group in having} == {name}]
    if not having or not keys:
        values = [value for group in groups for value in group.values.values()]
        labels = [group.label for group in groups]
        hint = did_you_mean(name, [*labels, *dict.fromkeys(values)])
        there = ", ".join(repr(label) for label in labels[:12]) + (", …" if len(labels) > 12 else "")
        raise UserError(f"--baseline: no group is called {name!r}{hint}; there are {there}")
    like = {_others(group, keys[0]): group for group in having}
    return {group.label: like[_others(group, keys[0])] for group in groups if _others(group, keys[0]) in like}


def _others(group: Group, key: str) -> tuple[str, ...]:
    return tuple(value for name, value in group.values.items() if name != key)


def _about_seeds(groups: Sequence[Group], barred: Mapping[Path, str]) -> list[str]:
    """What is to be known of seeds, once: whether each has a validation set, or a corpus, of its own."""
    runs = [run for group in groups for run in group.runs.values() if run.folder not in barred]
    hashes = {((run.summary or {}).get("data") or {}).get("hash") for run in runs} - {None}
    if len({split_seed(run) for run in runs}) < 2:
        return []
    own = "corpus" if len(hashes) > 1 else "validation set"
    return [f"every seed has a {own} of its own (data.split_seed follows the seed): losses compare within a seed only"]
