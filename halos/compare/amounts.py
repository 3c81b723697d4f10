"""Amounts at which losses are compared: so many tokens, steps, seconds or bytes, or shares of what all runs reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halos.compare.comparison import Comparison
from halos.compare.curve import HELD, STRAIGHT
from halos.compare.statistics import Spread
from halos.errors import UserError, did_you_mean, shown

KINDS = (*STRAIGHT, *HELD)
DEFAULT = {"tokens": ("25%", "50%", "100%"), "seconds": ("50%", "100%", "done"), "bytes": ("50%", "100%")}


@dataclass(frozen=True)
class Amounts:
    """Of tokens, steps, seconds or bytes, those at which losses are looked at, ascending."""

    of: str
    at: tuple[float, ...]


def amounts(comparison: Comparison, asked: Sequence[str]) -> list[Amounts]:
    """Those of `--at`, in its order, or else the usual ones: what can be said of none of the runs is left out.

    UserError for what is no amount.
    """
    wanted: Mapping[str, tuple[str, ...]] = dict(map(_parsed, asked)) if asked else DEFAULT
    found = []
    for of, texts in wanted.items():
        reached = comparison.reached(of)
        at = sorted({each for text in texts for each in _of(text, of, reached, comparison) if each > 0.0})
        if at:
            found.append(Amounts(of, tuple(at)))
    return found


def _parsed(text: str) -> tuple[str, tuple[str, ...]]:
    of, _, values = text.partition("=")
    if of not in KINDS:
        raise UserError(f"--at: {shown(of)} is none of {', '.join(KINDS)}{did_you_mean(of, KINDS)}")
    texts = tuple(each.strip() for each in values.split(",") if each.strip())
    if not texts:
        raise UserError(f"--at: {text!r} names no amount; write, for example, {of}=50%,100%")
    for each in texts:
        if each != "done" and math.isnan(_number(each.removesuffix("%"))):
            raise UserError(f"--at: {each!r} is no number of {of}, no share of what all runs reached (50%), nor done")
    return of, texts


def _of(text: str, of: str, reached: float, comparison: Comparison) -> list[float]:
    """The amount that a text stands for; none if the runs do not tell."""
    if text == "done":  # the baseline with what all have trained
        tokens, baseline = comparison.reached("tokens"), comparison.shared_baseline
        if baseline is None or of != "seconds" or math.isnan(tokens):
            return []
        end = Spread.of(list(comparison.done(baseline, "tokens", tokens).values())).mean
        return [] if math.isnan(end) else [end]
    if text.endswith("%"):
        share = _number(text[:-1]) / 100.0
        return [] if math.isnan(reached) else [share * reached]
    return [_number(text)]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) and number >= 0.0 else math.nan
