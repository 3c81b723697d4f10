"""The time model: cases worked out by hand, and a walk step by step."""

from __future__ import annotations

import numpy as np
import pytest

from halos.utilization.cycle import Cycle


def seconds(fragments: list[list[int]], every: int, overlap: int, step: float, *reductions: float) -> list[float]:
    """Of a steady cycle, for several durations of one layer's reduction."""
    return [float(each) for each in Cycle(fragments, every, overlap).seconds(step, np.array(reductions))]


def test_one_layer_waits_for_its_whole_reduction() -> None:
    """Four steps of 2 s; the reduction starts when the last step is over, the next step when it has arrived."""
    assert seconds([[0]], 4, 0, 2.0, 0.5, 3.0, 100.0) == pytest.approx([8.5, 11.0, 108.0])
    assert Cycle([[0]], 4, 0).utilization(2.0, np.array([2.0, 8.0])).tolist() == pytest.approx([0.8, 0.5])


def test_overlap_hides_as_many_steps_of_a_reduction() -> None:
    """One step of 2 s hides 2 s: nothing is left of a reduction of 1.5 s, and 1 s of one of 3 s."""
    assert seconds([[0]], 4, 1, 2.0, 1.5, 3.0, 100.0) == pytest.approx([8.0, 9.0, 106.0])


def test_a_whole_round_of_overlap_leaves_the_slower_of_computing_and_reducing() -> None:
    assert seconds([[0]], 4, 4, 2.0, 7.0, 8.0, 9.0, 100.0) == pytest.approx([8.0, 8.0, 9.0, 100.0])


def test_reductions_of_later_layers_start_while_earlier_ones_go_backward() -> None:
    """Two layers, a step of 6 s, every third of a layer's share 1 s. Forward 0–2; layer 1's gradients are done at 4,
    layer 0's at 6. With reductions of d the link is free for layer 0 at max(6, 4 + d), and the next step starts d
    later: 7, 8, 10 and 14 s after this one for d = 1, 2, 3 and 5."""
    assert seconds([[0, 1]], 1, 0, 6.0, 1.0, 2.0, 3.0, 5.0) == pytest.approx([7.0, 8.0, 10.0, 14.0])


def test_a_fragment_is_sent_while_the_others_wait() -> None:
    """Steps of 6 s as above. Layer 0 is queued at the end of the first step and delays the second by d. Layer 1 is
    queued 4 s into the second step and awaited 1 s into the next, 3 s later: a delay of max(0, d − 3)."""
    assert seconds([[0], [1]], 2, 0, 6.0, 1.0, 3.0, 5.0) == pytest.approx([13.0, 15.0, 19.0])


def test_a_link_that_falls_behind_by_a_thousandth_is_seen() -> None:
    """Two reductions of 3.003 s per step of 6 s, a whole step of overlap: 6.006 s a step in the long run, though
    what has been saved up lasts for hundreds of steps."""
    assert seconds([[0, 1]], 1, 1, 6.0, 2.9, 3.003, 4.0) == pytest.approx([6.0, 6.006, 8.0], rel=1e-12)


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("fragments", [[[0, 3], [1, 4], [2]], [[0, 1], [2], [3, 4]], [[0, 1, 2, 3, 4]]])
def test_a_walk_through_every_layer_of_every_step_takes_as_long(fragments: list[list[int]], overlap: int) -> None:
    layers, every, step, durations = 5, 12, 15.0, [0.1, 2.0, 4.5, 9.0, 20.0, 40.0]
    sent = {(p + 1) * every // len(fragments): set(layer) for p, layer in enumerate(fragments)}  # 4, 8, 12; or 12
    for duration, got in zip(durations, seconds(fragments, every, overlap, step, *durations)):
        now = link = 0.0
        arrivals: dict[tuple[int, int], float] = {}  # (step that waits, layer) → when
        ends = []
        for index in range(1, 20 * every + 1):
            for layer in range(layers):
                now = max(now, arrivals.get((index, layer), 0.0)) + step / 3 / layers
            for layer in reversed(range(layers)):
                now += step / 3 / layers + step / 3 / layers
                if layer in sent.get((index - 1) % every + 1, ()):
                    link = max(link, now) + duration
                    arrivals[index + 1 + overlap, layer] = link
            ends.append(now)
        assert got == pytest.approx((ends[-1] - ends[-1 - 10 * every]) / 10, rel=1e-9)
