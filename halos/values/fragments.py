"""How a model's parameters are cut into fragments: by layers, or into pieces of equal size.

Which fragment is sent when is left to whoever sends it. Patterns as in arXiv 2501.18512.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Optional

from halos.errors import require
from halos.values.params import Fragment, Layout

PATTERNS = ("strided", "sequential", "balanced")
MOST = 10_000  # fragments: balanced would cut a large model into as many as are asked for
LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)(?:\.|$)")


def layer_of(name: str) -> Optional[int]:
    """Return the layer of a tensor: the number after `layers.`, `h.` or `blocks.` in its name; None outside layers."""
    found = LAYER.search(name)
    return int(found[1]) if found else None


def assign(layers: int, fragments: int, pattern: str) -> list[list[int]]:
    """Return the layers (from 0) in each fragment, ascending. Raises ConfigError unless each fragment gets one.

    strided: layer l goes to fragment l mod `fragments`. sequential: contiguous runs whose lengths differ by at
    most one, the longer ones first.
    """
    require(pattern in ("strided", "sequential"), "pattern", pattern, "a pattern of layers: strided or sequential")
    require(1 <= fragments <= layers, "fragments", fragments, f"possible: {layers} layers make 1 to {layers} fragments")
    if pattern == "strided":
        return [list(range(first, layers, fragments)) for first in range(fragments)]
    length, longer = divmod(layers, fragments)
    ends = [i * length + min(i, longer) for i in range(fragments + 1)]
    return [list(range(start, end)) for start, end in pairwise(ends)]


def cut(layout: Layout, fragments: int, pattern: str) -> list[Fragment]:
    """Cut `layout` into `fragments` fragments, none of them empty: every parameter is in exactly one.

    strided, sequential: fragment 0 holds whatever is in no layer (embedding, head, final norm), the others the
    layers as `assign` says: strided, layer l is in fragment 1 + l mod (P − 1). Where every tensor is in a layer,
    the layers get all P; where none is, each tensor counts as one layer, in the layout's order.

    balanced: contiguous groups of whole tensors, in layer order, the largest group as small as possible (the last
    may be much smaller: each takes what fits). A tensor outside the layers takes its place among them: the embedding
    before the first, head and final norm after the last. Only if there are fewer tensors than fragments, tensors
    are cut too: the flat vector into runs whose lengths differ by at most one.

    One fragment is everything, whatever the pattern. Raises ConfigError (of `fragments` or `pattern`) if it cannot be
    done.
    """
    require(pattern in PATTERNS, "pattern", pattern, "one of " + ", ".join(PATTERNS))
    require(fragments <= MOST, "fragments", fragments, f"at most {MOST:,}")
    if pattern == "balanced":
        return _balanced(layout, fragments)
    groups = _by_layer(layout)
    others = groups.pop(None, [])
    if not groups:
        groups, others = {i: [piece] for i, piece in enumerate(others)}, []
    most, apart = len(groups) + bool(others), f"{len(groups)} layers" + (" and what is in none" if others else "")
    hint = "; balanced cuts tensors too" if most == 1 else ""
    require(
        1 <= fragments <= most, "fragments", fragments, f"possible: {apart} make 1 to {most} {pattern} fragments{hint}"
    )
    if fragments == 1:
        return [(slice(0, layout.size),)]
    layers = [groups[layer] for layer in sorted(number for number in groups if number is not None)]
    cuts = [_merged(others)] if others else []
    for members in assign(len(layers), fragments - len(cuts), pattern):
        cuts.append(_merged(piece for layer in members for piece in layers[layer]))
    return cuts


def _by_layer(layout: Layout) -> dict[Optional[int], list[slice]]:
    """Return the slices of each layer's tensors in the flat vector; those of no layer under None."""
    groups: dict[Optional[int], list[slice]] = {}
    for name in layout.shapes:
        piece = layout.slice_of(name)
        if piece.start < piece.stop:
            groups.setdefault(layer_of(name), []).append(piece)
    return groups


def _balanced(layout: Layout, fragments: int) -> list[Fragment]:
    most = layout.size
    require(1 <= fragments <= most, "fragments", fragments, f"possible: {most} parameters make 1 to {most} fragments")
    tensors = _in_layer_order(layout)
    if len(tensors) < fragments:
        ends = [i * layout.size // fragments for i in range(fragments + 1)]
        return [(slice(start, end),) for start, end in pairwise(ends)]
    lengths = [piece.stop - piece.start for piece in tensors]
    too_small, enough = max(lengths) - 1, layout.size  # the least capacity that suffices, by bisection
    while enough - too_small > 1:
        capacity = (too_small + enough) // 2
        if len(_filled(lengths, capacity, 0)) <= fragments:
            enough = capacity
        else:
            too_small = capacity
    counts = _filled(lengths, enough, fragments)
    ends = [sum(counts[:i]) for i in range(fragments + 1)]
    return [_merged(tensors[start:end]) for start, end in pairwise(ends)]


def _in_layer_order(layout: Layout) -> list[slice]:
    """Return the slices of tensors by layer; a tensor of no layer comes after the layer before it in the layout."""
    placed: list[tuple[int, bool, slice]] = []
    for matrices in (True, False):  # the layout begins anew after its matrices
        before = -1
        for name, shape in layout.shapes.items():
            piece = layout.slice_of(name)
            if (len(shape) >= 2) is matrices and piece.start < piece.stop:
                layer = layer_of(name)
                before = before if layer is None else layer
                placed.append((before, layer is None, piece))
    return [piece for *_, piece in sorted(placed, key=lambda entry: entry[:2])]


def _filled(lengths: list[int], capacity: int, groups: int) -> list[int]:
    """How many tensors each group holds if each takes what fits, but leaves one for each of `groups` after it."""
    counts: list[int] = []
    room = -1
    for i, length in enumerate(lengths):
        if length > room or len(lengths) - i <= groups - len(counts):
            counts.append(0)
            room = capacity
        counts[-1] += 1
        room -= length
    return counts


def _merged(pieces: Iterable[slice]) -> Fragment:
    """Return the slices in ascending order, adjacent ones made one."""
    merged: list[slice] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if merged and merged[-1].stop == piece.start:
            merged[-1] = slice(merged[-1].start, piece.stop)
        else:
            merged.append(piece)
    return tuple(merged)
