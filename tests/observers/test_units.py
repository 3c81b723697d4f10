"""Times and sizes as people say them."""

from __future__ import annotations

import pytest

from halos.observers.units import duration, size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"), (0, "0 s"), (0.4164, "416 ms"), (0.9999, "1.0 s"), (12.34, "12.3 s"), (59.96, "1 min 00 s"),
        (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (4096, "1 h 08 min"),
        (59 * 3600, "59 h 00 min"), (100 * 3600, "4 d 04 h"),
    ],
)  # fmt: skip
def test_durations_read_well(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("nbytes", "said"), [(0, "0 B"), (999, "999 B"), (999_600, "1.0 MB"), (281_706_496, "281.7 MB")]
)
def test_sizes_are_powers_of_a_thousand(nbytes, said):
    assert size(nbytes) == said
