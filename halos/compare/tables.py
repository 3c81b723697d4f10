"""Tables: what a comparison comes to, by topic, as texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from halos.compare.amounts import Amounts
from halos.compare.comparable import losses_known
from halos.compare.comparison import Comparison
from halos.compare.curve import STRAIGHT
from halos.compare.groups import Group
from halos.compare.pivot import SEPARATOR, pivoted
from halos.compare.scale import UNKNOWN, Scale, amount
from halos.compare.statistics import Paired, Spread, ratio
from halos.compare.targets import Target
from halos.errors import UserError, did_you_mean

MANY = 15  # intervals, of which some may hold no 0 by chance
LOSS = 3  # decimals of a loss, at least
EQUAL = {"tokens": "equal trained tokens", "steps": "equal trained steps", "seconds": "equal simulated time"}
INTERVAL = "95 % interval"  # of the column to its left
SPREAD = "mean ± sample standard deviation over seeds"


@dataclass(frozen=True)
class Table:
    """One table, as a terminal or a page shows it."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()  # below it, a line each


def tables(
    comparison: Comparison, at: Sequence[Amounts], targets: Sequence[Target], topics: Sequence[str] = ()
) -> list[Table]:
    """Those of these topics, in this order (none given: all there are); those that would be empty are left out.

    A topic `MEASURE:KEY` is a pivot. UserError for a topic that there is not.
    """
    made: dict[str, Callable[[], list[Table]]] = {
        "losses": lambda: [losses(comparison, each) for each in at],
        "differences": lambda: [differences(comparison, at)],
        "targets": lambda: [target(comparison, each) for each in targets],
        "cost": lambda: [cost(comparison)],
        "work": lambda: [work(comparison)],
        "staleness": lambda: [staleness(comparison)],
        "front": lambda: [front(comparison)],
    }
    for topic in topics:
        if SEPARATOR in topic:
            made[topic] = partial(pivot, comparison, topic)
        elif topic not in made:
            raise UserError(
                f"--tables: {topic!r} is none of {', '.join(made)}, nor MEASURE:KEY{did_you_mean(topic, made)}"
            )
    return [table for topic in topics or made for table in made[topic]() if table.rows]


def losses(comparison: Comparison, at: Amounts) -> Table:
    """Losses at equal amounts. At equal time also when a group had trained what all have: its own amount of time."""
    title = f"Validation loss at {EQUAL.get(at.of, f'equal {at.of} sent')}"
    by_group = {group.label: [comparison.losses(group, at.of, each) for each in at.at] for group in comparison.groups}
    scale = Scale.of([loss for each in by_group.values() for values in each for loss in values.values()], least=LOSS)
    tokens = comparison.reached("tokens")
    ends = {
        group.label: Spread.of(list(comparison.done(group, "tokens", tokens).values())) for group in comparison.groups
    }
    clock = Scale.of([end.mean for end in ends.values()], "seconds")
    rows, held = [], False
    for group in comparison.groups:
        count, cells = _with_losses(comparison, group), []
        for each, values in zip(at.at, by_group[group.label]):
            cell = _of(scale.spread(Spread.of(list(values.values()))), len(values), count)
            over = bool(values) and at.of not in STRAIGHT and comparison.ended(group, at.of, each)
            held = held or over
            cells.append(f"({cell})" if over else cell)
        timed = [clock.spread(ends[group.label])] if at.of == "seconds" else []
        rows.append((group.label, *timed, *cells))
    heads = [amount(each, at.of) for each in at.at]
    if at.of == "seconds":
        heads = [f"{clock.unit} until {amount(tokens, 'tokens')} are trained", *heads]
    if not any(comparison.curves.values()):
        rows = []
    notes = [SPREAD] + ["in brackets: some run had ended before; its final model counts"] * held
    return Table(title, ("", *heads), tuple(rows), tuple(notes))


def differences(comparison: Comparison, at: Sequence[Amounts]) -> Table:
    """What losses differ by from the baseline's of the same seed, at what all have reached."""
    chosen = []
    for each in at:
        within = [one for one in each.at if one <= comparison.reached(each.of)]
        chosen += [(each.of, one) for one in within[-2 if each.of in STRAIGHT else -1 :]]
    found: dict[str, list[Paired]] = {}
    for group in comparison.groups:
        baseline = comparison.against.get(group.label)
        if baseline is not None and baseline is not group:
            found[group.label] = [
                Paired.of(comparison.learned(group, *each), comparison.learned(baseline, *each)) for each in chosen
            ]
    known = [comparison.losses(group, *each) for group in comparison.groups for each in chosen]
    scale = Scale.of([loss for values in known for loss in values.values()], least=LOSS)
    most = max((pair.count for pairs in found.values() for pair in pairs), default=0)
    rows = []
    for label, pairs in found.items():
        cells = []
        for pair in pairs:
            if pair.mean == pair.deviation == 0.0:  # to the last bit: the very same training
                cells += ["the same", UNKNOWN]
                continue
            interval = f"{scale.show(pair.low, '+')} to {scale.show(pair.high, '+')}"
            cells.append(_of(scale.spread(pair, "+"), pair.count, most, "pairs"))
            cells.append(UNKNOWN if math.isnan(pair.low) else interval)
        rows.append((label, *cells))
    heads = [head for of, one in chosen for head in (f"at {amount(one, of)}", INTERVAL)]
    title = f"Validation loss minus {_baseline(comparison)}'s"
    title += "" if comparison.shared_baseline else ", all else being equal"
    pairs_are = f"{most} pair{'s' * (most != 1)} of runs with the same seed"
    notes = [f"{pairs_are}; mean ± sample standard deviation of the differences"]
    intervals = [pair for several in found.values() for pair in several if pair.low < pair.high]
    if len(intervals) >= MANY:
        beside = sum(pair.low > 0.0 or pair.high < 0.0 for pair in intervals)
        notes.append(
            f"{beside} of {len(intervals)} intervals do not hold 0; of so many, {len(intervals) / 20:.0f} would"
        )
        notes[-1] += " by chance alone"
    before = any(
        len(comparison.learned(group, *each)) < len(comparison.losses(group, *each))
        for group in comparison.groups
        for each in chosen
    )
    if before:
        notes.append("–: where nothing had been committed to a model yet, it is the initial one")
    return Table(title, ("", *heads), tuple(rows if most else ()), tuple(notes))


def target(comparison: Comparison, target: Target) -> Table:
    """What it took to get there, and how many times as fast as the baseline that was; as far as it is known of any."""
    reached = {group.label: comparison.reaching(group, target) for group in comparison.groups}
    kinds = ("seconds", "tokens", "bytes")
    scales = {
        kind: Scale.of([each for one in reached.values() for each in one.of(kind).values()], kind) for kind in kinds
    }
    rows = []
    for group in comparison.groups:
        mine, baseline = reached[group.label], comparison.against.get(group.label)
        if not mine.count:
            cells = [UNKNOWN] * 4
        elif not mine.spent:
            cells = ["not reached" + " so far" * bool(mine.running), *[UNKNOWN] * 3]
        else:
            spreads = {kind: scales[kind].spread(Spread.of(list(mine.of(kind).values()))) for kind in kinds}
            some = _of("", len(mine.spent), mine.count) + " so far" * bool(mine.running)
            faster = UNKNOWN
            if baseline is not None and baseline is not group:
                faster = _times(ratio(reached[baseline.label].of("seconds"), mine.of("seconds")), mine.count)
            cells = [f"{spreads['seconds']}{some}", faster, spreads["tokens"], spreads["bytes"]]
        rows.append((group.label, *cells))
    heads = (
        "",
        f"simulated {scales['seconds'].unit}",
        "times as fast",
        scales["tokens"].unit,
        f"{scales['bytes'].unit} sent",
    )
    notes = ["when an evaluation first shows it; " + SPREAD]
    if any(one.missed and one.spent for one in reached.values()):
        notes.append("(2 of 3 seeds): of those that reached it alone; the others had not by the end of their runs")
    if any(row[2] != UNKNOWN for row in rows):
        notes.append("times as fast: geometric mean over seeds where both reached it, and its 95 % interval")
    title = f"Until {target.said(_baseline(comparison))}" + " of the same seed" * target.above
    known = [i for i in range(len(heads)) if i < 2 or any(row[i] != UNKNOWN for row in rows)]
    lines = [tuple(row[i] for i in known) for row in rows] if any(one.count for one in reached.values()) else []
    return Table(title, tuple(heads[i] for i in known), tuple(lines), tuple(notes))


def cost(comparison: Comparison) -> Table:
    """Simulated time, bytes and money, and what workers did with the time."""
    columns = [
        ("simulated_seconds", "seconds", "simulated {}"),
        ("bytes", "bytes", "{} sent"),
        ("dollars", "", "$"),
        ("compute_share", "%", "computing"),
        ("transfer_share", "%", "transferring"),
        ("idle_share", "%", "idle"),
        ("down_share", "%", "down"),
        ("wall_seconds", "seconds", "wall {}"),
    ]
    table = _measures(comparison, "Cost per run, mean over seeds", columns, ("shares are of the workers' time",))
    priced = ("$ of traffic between regions, as priced",) if "$" in table.heads else ()
    return replace(table, notes=(*table.notes, *priced))


def work(comparison: Comparison) -> Table:
    """What was trained, and what became of it."""
    columns = [
        ("tokens", "tokens", "{}"),
        ("trained_steps", "steps", "steps trained"),
        ("in_flight_steps", "steps", "never committed"),
        ("dropped_steps", "steps", "dropped"),
        ("lost_steps", "steps", "lost"),
        ("commits", "steps", "global commits"),
        ("goodput", "%", "goodput"),
        ("expected_goodput", "%", "expected goodput"),
    ]
    return _measures(comparison, "Work per run, mean over seeds", columns)


def staleness(comparison: Comparison) -> Table:
    """Staleness and drift of what the global model took in."""
    columns = [
        ("hop_staleness", "", "staleness by hop"),
        ("staleness", "", "end to end"),
        ("hop_drift", "", "drift by hop"),
        ("drift", "", "end to end"),
        ("hop_drift_in_updates", "", "drift / ‖Δ‖ by hop"),
        ("drift_in_updates", "", "end to end"),
    ]
    notes = (
        "staleness in versions, each of as many local steps as a commit holds: not to be compared between policies",
        "drift in parameters, and in units of the update's own ‖Δ‖; docs/measures.md",
    )
    return _measures(comparison, "Staleness and drift, mean over seeds", columns, notes)


def pivot(comparison: Comparison, topic: str) -> list[Table]:
    """One measure, the values of one key side by side: `MEASURE:KEY`."""
    title, heads, rows = pivoted(comparison, topic)
    several = any(len(group.runs) > 1 for group in comparison.groups)
    return [Table(title, heads, rows, (SPREAD,) if several else ())]


def front(comparison: Comparison) -> Table:
    """The Pareto front of final loss, simulated time, bytes and money: who is on it, and who is dominated by whom."""
    kinds, means, seeds = comparison.costs
    heads = {"final_loss": "final loss", "simulated_seconds": "simulated {}", "bytes": "{} sent", "dollars": "$"}
    units = {"simulated_seconds": "seconds", "bytes": "bytes"}
    scales = [
        Scale.of([each[i] for each in means.values()], units.get(kind, ""), LOSS if kind == "final_loss" else 0)
        for i, kind in enumerate(kinds)
    ]
    rows = []
    for label, values in means.items():
        worse_than = comparison.dominated[label]
        more = f" and {len(worse_than) - 2} more" if len(worse_than) > 2 else ""
        by = f"by {'; '.join(worse_than[:2])}{more}" if worse_than else "on the front"
        rows.append((label, *(scale.show(value) for scale, value in zip(scales, values)), by))
    over = f"the {len(seeds)} finished seed{'s' * (len(seeds) != 1)} that all have" if seeds else "own finished seeds"
    notes = ["dominated: another is at least as good in all of this, and better in some", f"means over {over}"]
    out = [group.label for group in comparison.groups if group.label not in means]
    notes += [f"left out, as not all of this is known: {'; '.join(out)}"] if out and means else []
    made = [heads[kind].format(scale.unit) for kind, scale in zip(kinds, scales)]
    return Table("Pareto front", ("", *made, "dominated"), tuple(rows if len(rows) > 1 else ()), tuple(notes))


def remarks(lines: Sequence[str]) -> list[Table]:
    """What else is to be known, a line each; nothing, if there is nothing."""
    return [Table("To be known", ("",), tuple((line,) for line in lines))] if lines else []


def _measures(
    comparison: Comparison, title: str, columns: Sequence[tuple[str, str, str]], notes: Sequence[str] = ()
) -> Table:
    """A column per measure of which something is known that is not 0 throughout: its means."""
    made: list[tuple[str, list[str]]] = []
    for name, kind, head in columns:
        means = [Spread.of(list(comparison.measure(group, name).values())).mean for group in comparison.groups]
        always = kind == "%" and name != "down_share"
        known = [mean for mean in means if not math.isnan(mean)]
        if not known or not (any(known) or always or name in ("in_flight_steps", "hop_staleness")):
            continue
        if kind == "%":
            made.append((head, [UNKNOWN if math.isnan(mean) else f"{mean:.1%}" for mean in means]))
        else:
            scale = Scale.of(means, kind)
            made.append((head.format(scale.unit), [scale.show(mean) for mean in means]))
    rows = [(group.label, *(cells[i] for _, cells in made)) for i, group in enumerate(comparison.groups)]
    if any(run.finished is not True for group in comparison.groups for run in group.runs.values()):
        notes = (*notes, "runs that are not finished count as far as they came")
    return Table(title, ("", *(head for head, _ in made)), tuple(rows if made else ()), tuple(notes))


def _with_losses(comparison: Comparison, group: Group) -> int:
    """Of how many seeds a loss could be known: of all that trained."""
    return sum(losses_known(run) for run in group.runs.values())


def _of(text: str, count: int, of: int, what: str = "seeds") -> str:
    """With how many seeds it is of, unless that is all, or none."""
    return f"{text} ({count} of {of} {what})" if 0 < count < of else text


def _times(pair: Paired, count: int) -> str:
    """`3.2 (2.1 to 4.9)`."""
    if not pair.count:
        return UNKNOWN
    scale = Scale.of([pair.mean])
    interval = "" if math.isnan(pair.low) else f" ({scale.show(pair.low)} to {scale.show(pair.high)})"
    return _of(f"{scale.show(pair.mean)}{interval}", pair.count, count)


def _baseline(comparison: Comparison) -> str:
    shared = comparison.shared_baseline
    return comparison.called if shared is None else shared.label
