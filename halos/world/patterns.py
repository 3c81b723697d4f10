"""Patterns: who sends how much to whom in a collective: ring, tree, hierarchical."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple


class Stage(NamedTuple):
    """Messages that are under way at once, each cut into as many pieces as go one after the other.

    In all patterns 2 (M−1) payloads are sent by an all-reduce among M members, and M (M−1) by an all-gather.
    """

    sends: list[tuple[int, int, float]]  # from member to member (by position), so many payloads
    steps: int  # that wait for each other: each of them waits for a latency


Pattern = Callable[[Sequence[int], bool], list[Stage]]


def ring(regions: Sequence[int], gathered: bool = False) -> list[Stage]:
    """All members on one ring, a piece of 1/M at a time (Patarasuk and Yuan, 2009): 2 (M−1) steps of 1/M.

    `regions` are those of the members, in the order in which they stand on the ring. An all-gather (`gathered`) passes
    whole payloads on: M−1 steps.
    """
    members = len(regions)
    return _ring(range(members), members - 1.0 if gathered else 2.0 * (members - 1) / members, gathered)


def tree(regions: Sequence[int], gathered: bool = False) -> list[Stage]:
    """A binomial tree with the first member as its root (Thakur, Rabenseifner and Gropp, 2005): up, then down again.

    ⌈log₂ M⌉ stages each way, each of a whole payload; in an all-gather, of what is new to whoever receives it.
    """
    members, up, down, reach = len(regions), [], [], 1
    while reach < members:
        children = range(reach, members, 2 * reach)
        sizes = {child: min(reach, members - child) if gathered else 1 for child in children}  # it and those below it
        news = {child: members - sizes[child] if gathered else 1 for child in children}
        up.append(Stage([(child, child - reach, float(sizes[child])) for child in children], 1))
        down.append(Stage([(child - reach, child, float(news[child])) for child in children], 1))
        reach *= 2
    return up + down[::-1]


def hierarchical(regions: Sequence[int], gathered: bool = False) -> list[Stage]:
    """Inside each region first, to its first member; these among each other on a ring; inside again.

    In a region of m members payloads go along a chain, in pieces so small that a chain takes a payload's time and m−1
    latencies. Among R regions it is a ring of R members. An all-gather begins with rings inside, and regions pass on
    all that they have.
    """
    members = range(len(regions))
    several = [list(group) for _, group in groupby(members, key=lambda member: regions[member])]
    leaders, longest = [group[0] for group in several], max(len(group) for group in several)
    if gathered:
        rings = (_ring(group, len(group) - 1.0, True) for group in several)
        inside = [Stage([send for stages in rings for stage in stages for send in stage.sends], longest - 1)]
        # To whoever comes next: all but what it has, which it does not need.
        ahead = zip(leaders, several[1:] + several[:1])
        among = [Stage([(each, group[0], float(len(regions) - len(group))) for each, group in ahead], len(several) - 1)]
    else:
        chains = [(after, before, 1.0) for group in several for before, after in pairwise(group)]
        inside = [Stage(chains, longest - 1)]
        among = _ring(leaders, 2.0 * (len(leaders) - 1) / len(leaders), False)
    lacking = [(group, float(len(regions) - len(group)) if gathered else 1.0) for group in several]
    back = [(before, after, share) for group, share in lacking for before, after in pairwise(group)]
    return [stage for stage in (*inside, *among, Stage(back, longest - 1)) if stage.steps]


def _ring(members: Iterable[int], payloads: float, gathered: bool) -> list[Stage]:
    around = list(members)
    if len(around) == 1:
        return []
    steps = (1 if gathered else 2) * (len(around) - 1)
    return [Stage([(each, after, payloads) for each, after in zip(around, around[1:] + around[:1])], steps)]


PATTERNS: dict[str, Pattern] = {"ring": ring, "tree": tree, "hierarchical": hierarchical}
