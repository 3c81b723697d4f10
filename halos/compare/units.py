"""The units in which a figure says how much was spent, so that its numbers are short."""

from __future__ import annotations

UNITS = {  # in seconds, bytes and tokens, and from how many on
    "seconds": (
        (172_800.0, 86_400.0, "days"),
        (7_200.0, 3_600.0, "hours"),
        (600.0, 60.0, "minutes"),
        (0.0, 1.0, "seconds"),
    ),
    "bytes": ((1e12, 1e12, "TB"), (1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (1e3, 1e3, "kB"), (0.0, 1.0, "")),
    "tokens": ((1e9, 1e9, "billions"), (1e6, 1e6, "millions"), (1e3, 1e3, "thousands"), (0.0, 1.0, "")),
}


def in_units(of: str, most: float) -> tuple[float, str]:
    """Return a unit for amounts up to `most`: how much it is, and its name (empty: it is what one counts anyway)."""
    return next((size, name) for least, size, name in UNITS[of] if most >= least)
