"""What a point stands for."""

import math

from halos.observers.tensorboard.window import Window


def test_a_window_has_the_weighed_mean_and_the_most_of_what_is_a_number():
    window = Window()
    window.add(4.0, 1)
    window.add(math.nan, 5)
    window.add(1.0, 3)
    assert window.take() == (1.75, 4.0)


def test_what_was_taken_is_gone_and_of_nothing_nothing_is_known():
    window = Window()
    window.add(4.0)
    window.take()
    assert all(map(math.isnan, window.take()))
