"""Targets: a loss to be reached, and what it took whoever reached it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from halos.compare.curve import Curve
from halos.errors import UserError


@dataclass(frozen=True)
class Target:
    """A loss, or (`above`) so much above the loss that the baseline's run of the same seed ends with."""

    loss: float
    above: bool = False

    @staticmethod
    def parse(text: str) -> Target:
        """Read `2.3`, or `+0.1` for a margin; UserError if it is neither."""
        try:
            loss = float(text)
        except ValueError:
            loss = math.nan
        if not math.isfinite(loss):
            raise UserError(
                f"--target-loss: {text!r} is not a loss such as 2.3, or +0.1 above the baseline's final one"
            )
        return Target(loss, text.strip().startswith("+"))

    def of(self, baseline: Optional[Curve]) -> float:
        """The loss itself, given the baseline's curve of the seed; NaN if it has none."""
        if not self.above:
            return self.loss
        return float(baseline.loss[-1]) + self.loss if baseline is not None else math.nan

    def said(self, baseline: str) -> str:
        """`loss 2.3`, or `the baseline's final loss + 0.1`."""
        if not self.above:
            return f"loss {self.loss:g}"
        margin = "" if self.loss == 0.0 else f" {'-' if self.loss < 0 else '+'} {abs(self.loss):g}"
        return f"{baseline}'s final loss{margin}"

    @property
    def key(self) -> str:
        """As it is written."""
        return f"{self.loss:+.15g}" if self.above else f"{self.loss:.15g}"


@dataclass(frozen=True)
class Reached:
    """What it took a group's runs to reach a target, by seed, until they were first seen there."""

    spent: Mapping[int, Mapping[str, float]]  # of the seeds that reached it: seconds, tokens, steps, bytes
    missed: tuple[int, ...]  # seeds that did not reach it while they ran: their times are longer than those, if any
    running: tuple[int, ...]  # those of them that may still do it

    @property
    def count(self) -> int:
        """How many seeds were to reach it."""
        return len(self.spent) + len(self.missed)

    def of(self, name: str) -> dict[int, float]:
        """Seconds, tokens, steps or bytes, by seed, of those that reached it."""
        return {seed: spent[name] for seed, spent in self.spent.items()}
