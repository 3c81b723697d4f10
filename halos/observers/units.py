"""Times and sizes as people say them."""

from __future__ import annotations

from typing import Optional


def duration(seconds: Optional[float]) -> str:
    """Seconds as people say them: `416 ms`, `12.3 s`, `3 min 05 s`, `1 h 08 min`, `3 d 04 h`."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms" if seconds else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for small, unit, large, divisor in ((1, "s", "min", 60), (60, "min", "h", 60), (3600, "h", "d", 24)):
        whole = round(seconds / small)
        if whole < divisor * divisor or unit == "h":
            return f"{whole // divisor:,} {large} {whole % divisor:02d} {unit}"
    raise AssertionError("days are the last resort")


def size(nbytes: float) -> str:
    """Bytes in powers of a thousand: `281.7 MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if nbytes < 999.5 or unit == "PB":
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == "B" else f"{nbytes:,.1f} {unit}"
