"""The picture of the workers' timeline, looked at by its pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from halos.observers.tensorboard.timeline import Timeline
from halos.observers.tensorboard.timeline_picture import COLOURS, COLUMNS, LEFT, TOP, png, ticks
from tests.observers.tensorboard.test_timeline import cluster, told, update


def drawn(timeline: Timeline, now: float, workers: int) -> np.ndarray:
    world = cluster(workers)
    picture, width, height = png("a run", world, timeline.bands, timeline.shares(now, COLUMNS), now)
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    assert pixels.shape == (height, width, 3)
    return pixels


def test_a_worker_s_row_has_the_colour_of_what_it_does_at_the_place_of_the_moment() -> None:
    """Two workers of 8 s: the first computes for 4, the second transfers for 2, computes for 2, transfers for 4."""
    records = [
        update(worker=0, compute=(0.0, 4.0)),
        update(worker=1, start_time=0.0, compute=(2.0, 4.0), time=8.0, server=0),
    ]
    pixels = drawn(told(Timeline(cluster(2)), *records), 8.0, 2)
    tall = 22  # pixels of a row, if there are few
    for worker, states in enumerate(
        (["compute", "compute", "idle", "idle"], ["transfer", "compute"] + ["transfer"] * 2)
    ):
        y = TOP + tall * worker + tall // 2
        there = [tuple(pixels[y, LEFT + COLUMNS * (2 * quarter + 1) // 8]) for quarter in range(4)]
        assert there == [COLOURS[state] for state in states]


def test_a_row_of_several_is_filled_as_far_as_they_compute() -> None:
    """Of 1,000 workers every second one computes: the lower half of each row."""
    half = [update(worker=worker, compute=(0.0, 4.0)) for worker in range(0, 1000, 2)]
    pixels = drawn(told(Timeline(cluster(1000)), *half), 4.0, 1000)
    column = pixels[TOP : TOP + 10, LEFT + 100]
    assert [tuple(pixel) for pixel in column[1:5]] == [COLOURS["idle"]] * 4
    assert [tuple(pixel) for pixel in column[5:]] == [COLOURS["compute"]] * 5
    assert pixels.shape[0] < 900


@pytest.mark.parametrize(
    ("now", "last", "count"),
    [(8.0, 8.0, 9), (112.0, 105.0, 8), (0.35, 0.35, 8), (7200.0, 7200.0, 9), (86400.0 * 40, 86400.0 * 40, 9)],
)
def test_an_axis_has_round_times(now: float, last: float, count: int) -> None:
    found = ticks(now)
    assert (found[0], found[-1], len(found)) == (0, pytest.approx(last), count)
    assert len(ticks(now)) <= 10
