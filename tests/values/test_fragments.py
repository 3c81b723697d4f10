"""Every parameter belongs to exactly one fragment, and to the one its pattern says."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halos.errors import ConfigError
from halos.models.gpt_neox import GPTNeoX
from halos.values.fragments import assign, cut, layer_of
from halos.values.params import Fragment, Layout

# Three layers of a matrix and a norm between an embedding, a final norm and a head, as the layout puts them:
# embed 0:10, layers 10:14, 14:18, 18:22, head 22:32; then norms of the layers 32:34, 34:36, 36:38, final norm 38:40.
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed.weight": (5, 2),
    "model.layers.0.norm.weight": (2,),
    "model.layers.0.dense.weight": (2, 2),
    "model.layers.1.norm.weight": (2,),
    "model.layers.1.dense.weight": (2, 2),
    "model.layers.2.norm.weight": (2,),
    "model.layers.2.dense.weight": (2, 2),
    "model.final_norm.weight": (2,),
    "head.weight": (5, 2),
}


def pieces(fragments: list[Fragment]) -> list[list[tuple[int, int]]]:
    return [[(piece.start, piece.stop) for piece in fragment] for fragment in fragments]


def lengths(fragments: list[Fragment]) -> list[int]:
    return [sum(piece.stop - piece.start for piece in fragment) for fragment in fragments]


def test_layers_go_round_when_strided_and_in_runs_when_sequential() -> None:
    assert assign(7, 3, "strided") == [[0, 3, 6], [1, 4], [2, 5]]
    assert assign(7, 3, "sequential") == [[0, 1, 2], [3, 4], [5, 6]]
    assert assign(4, 4, "strided") == assign(4, 4, "sequential") == [[0], [1], [2], [3]]


@pytest.mark.parametrize("fragments", [0, 8])
@pytest.mark.parametrize("pattern", ["strided", "sequential"])
def test_more_fragments_than_layers_or_none_are_refused(fragments: int, pattern: str) -> None:
    with pytest.raises(ConfigError, match=f"fragments: {fragments} is not possible: 7 layers make 1 to 7 fragments"):
        assign(7, fragments, pattern)


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="pattern: 'random' is not one of strided, sequential, balanced"):
        cut(Layout(SHAPES), 2, "random")
    with pytest.raises(ConfigError, match="pattern: 'balanced' is not a pattern of layers"):
        assign(2, 2, "balanced")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("gpt_neox.layers.11.mlp.dense_h_to_4h.bias", 11),
        ("transformer.h.3.attn.weight", 3),
        ("blocks.0.norm", 0),
        ("layers.7", 7),
        ("gpt_neox.embed_in.weight", None),
        ("gpt_neox.final_layer_norm.weight", None),
        ("players.3.weight", None),
        ("theta", None),
    ],
)
def test_a_tensors_layer_is_the_number_in_its_name(name: str, layer: int | None) -> None:
    assert layer_of(name) == layer


def test_what_is_in_no_layer_is_fragment_0_and_layers_follow() -> None:
    layout, outside = Layout(SHAPES), [(0, 10), (22, 32), (38, 40)]
    even, odd = [(10, 14), (18, 22), (32, 34), (36, 38)], [(14, 18), (34, 36)]
    assert pieces(cut(layout, 2, "strided")) == [outside, [(10, 22), (32, 38)]]
    assert pieces(cut(layout, 3, "strided")) == [outside, even, odd]
    assert pieces(cut(layout, 3, "sequential")) == [outside, [(10, 18), (32, 36)], [(18, 22), (36, 38)]]
    assert pieces(cut(layout, 1, "strided")) == [[(0, 40)]]


def test_pythias_layers_are_strided_as_the_paper_says() -> None:
    """Pythia-14M has 6 layers of 12 tensors; 3 fragments of 2 layers each, and 1 of the rest."""
    layout = Layout(GPTNeoX(size="pythia-14m").shapes(None))
    fragments = cut(layout, 4, "strided")
    for name in layout.shapes:
        layer = layer_of(name)
        wanted = 0 if layer is None else 1 + layer % 3
        where = layout.slice_of(name)
        (held,) = [p for p, each in enumerate(fragments) for s in each if s.start <= where.start < s.stop]
        assert held == wanted, name
    hidden, vocabulary = 128, 50_304
    layer_size = 12 * hidden**2 + 13 * hidden
    assert lengths(fragments) == [2 * hidden * vocabulary + 2 * hidden, *[2 * layer_size] * 3]


def test_without_tensors_outside_layers_the_layers_get_all_fragments() -> None:
    layout = Layout({"layers.0.w": (3, 1), "layers.1.w": (4, 1), "layers.2.w": (5, 1)})
    assert pieces(cut(layout, 2, "strided")) == [[(0, 3), (7, 12)], [(3, 7)]]
    assert pieces(cut(layout, 3, "sequential")) == [[(0, 3)], [(3, 7)], [(7, 12)]]


def test_without_layers_each_tensor_counts_as_one() -> None:
    layout = Layout({"a": (1, 2), "b": (1, 3), "c": (1, 4)})
    assert pieces(cut(layout, 2, "strided")) == [[(0, 2), (5, 9)], [(2, 5)]]
    assert pieces(cut(layout, 2, "sequential")) == [[(0, 5)], [(5, 9)]]


def test_a_single_tensor_is_cut_only_when_balanced() -> None:
    layout = Layout({"theta": (5,)})
    assert pieces(cut(layout, 2, "balanced")) == [[(0, 2)], [(2, 5)]]
    assert pieces(cut(Layout({"theta": (2,)}), 2, "balanced")) == [[(0, 1)], [(1, 2)]]
    with pytest.raises(ConfigError, match=r"fragments: 2 is not possible: .* balanced cuts tensors too"):
        cut(layout, 2, "strided")


def test_balanced_groups_are_whole_tensors_in_layer_order() -> None:
    """In that order the lengths are 10, (4, 2), (4, 2), (4, 2), 10, 2: of 40 in 3 groups the largest holds at least
    13⅓, so 14 = 10 + 4 is the least; each group takes what fits: 14 = 2 + 4 + 2 + 4 + 2, then 10 + 2."""
    groups = pieces(cut(Layout(SHAPES), 3, "balanced"))
    assert groups == [[(0, 14)], [(14, 22), (32, 38)], [(22, 32), (38, 40)]]


@pytest.mark.parametrize("pattern", ["strided", "sequential"])
def test_too_many_fragments_are_refused_with_how_many_are_possible(pattern: str) -> None:
    assert len(cut(Layout(SHAPES), 4, pattern)) == 4
    with pytest.raises(ConfigError, match=f"fragments: 5 is not possible: 3 layers and .* 1 to 4 {pattern} fragments"):
        cut(Layout(SHAPES), 5, pattern)
    with pytest.raises(ConfigError, match="fragments: 0 is not possible"):
        cut(Layout(SHAPES), 0, pattern)


def test_more_fragments_than_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="fragments: 41 is not possible: 40 parameters make 1 to 40 fragments"):
        cut(Layout(SHAPES), 41, "balanced")


NAMES = st.one_of(
    st.sampled_from(["embed", "norm", "head", "theta"]),
    st.builds("{}.{}.{}".format, st.just("layers"), st.integers(0, 5), st.sampled_from("abc")),
)
LAYOUTS = st.dictionaries(NAMES, st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1).map(Layout)


@given(LAYOUTS, st.integers(1, 12), st.sampled_from(["strided", "sequential", "balanced"]))
def test_every_parameter_is_in_exactly_one_fragment(layout: Layout, fragments: int, pattern: str) -> None:
    try:
        made = cut(layout, fragments, pattern)
    except ConfigError:
        several = {layer_of(name) for name, shape in layout.shapes.items() if math.prod(shape)}
        tensors = sum(math.prod(shape) > 0 for shape in layout.shapes.values())
        possible = layout.size if pattern == "balanced" else tensors if several == {None} else len(several)
        assert fragments > possible
        return
    assert len(made) == fragments and all(lengths(made))
    for fragment in made:
        assert all(before.stop < after.start for before, after in itertools.pairwise(fragment)), "ascending, merged"
    covered = sorted(position for fragment in made for piece in fragment for position in range(piece.start, piece.stop))
    assert covered == list(range(layout.size))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 8))
def test_no_other_contiguous_cut_has_a_smaller_largest_group(sizes: list[int], fragments: int) -> None:
    if fragments > len(sizes):
        return
    layout = Layout({f"layers.{i}.w": (size,) for i, size in enumerate(sizes)})
    best = min(
        max(sum(sizes[a:b]) for a, b in zip((0, *cuts), (*cuts, len(sizes))))
        for cuts in itertools.combinations(range(1, len(sizes)), fragments - 1)
    )
    assert max(lengths(cut(layout, fragments, "balanced"))) == best
