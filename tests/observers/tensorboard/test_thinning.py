"""Which records make a point."""

from halos.observers.tensorboard.thinning import POINTS, Thinning


def test_points_lie_evenly_over_the_budget():
    """In every one of POINTS equal parts the first record makes a point, and no other does."""
    thinning = Thinning()
    due = [thinning.due(share / POINTS) for share in (0.5, 1.0, 1.25, 1.75, 2.0, 5.5, 5.75, 6.0)]
    assert due == [True, True, False, False, True, True, False, True]


def test_without_a_known_end_points_get_rarer():
    thinning = Thinning()
    assert sum(thinning.due(0.0) for _ in range(POINTS)) == POINTS
    assert sum(thinning.due(0.0) for _ in range(2 * POINTS)) == POINTS
    assert sum(thinning.due(0.0) for _ in range(4 * POINTS)) == POINTS
