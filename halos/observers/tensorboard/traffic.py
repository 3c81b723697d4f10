"""What went over the links so far, by kind of transfer: as curves, and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from halos.observers.units import size
from halos.values.records import ALL_REDUCE, Transfer

LINKED_REGIONS = 6  # with more regions, there are no curves by link: they would be too many
LINKS = 50  # in the table
KINDS = {"pull": "pulls", "push": "pushes", "send": "sends", ALL_REDUCE: "all-reduces"}


class Traffic:
    """Adds up the bytes of transfers that have arrived, between `regions` by name."""

    def __init__(self, regions: Sequence[str]) -> None:
        self.by_link = len(regions) <= LINKED_REGIONS  # whether there are curves by link
        self._regions = regions
        self._bytes: dict[tuple[Optional[int], Optional[int], str], int] = {}  # by link and kind of transfer

    def add(self, transfer: Transfer) -> None:
        """One more has arrived."""
        of_link = (transfer.src, transfer.dst, transfer.kind)
        self._bytes[of_link] = self._bytes.get(of_link, 0) + transfer.bytes

    def curves(self) -> dict[str, float]:
        """Megabytes so far, in all, by kind of transfer and, if regions are few, by link."""
        count = {"traffic/total [MB]": 0}
        for (src, dst, kind), nbytes in self._bytes.items():
            names = ["total", KINDS.get(kind, kind)]
            if src is not None and dst is not None and self.by_link:
                names.append(f"{self._regions[src]} → {self._regions[dst]}")
            for tag in [f"traffic/{name} [MB]" for name in names]:
                count[tag] = count.get(tag, 0) + nbytes
        return {tag: nbytes / 1e6 for tag, nbytes in count.items()}

    def links(self) -> Iterator[tuple[str, ...]]:
        """What went over each link, the most first."""
        links: dict[str, dict[str, int]] = {}
        for (src, dst, kind), nbytes in self._bytes.items():
            name = "all of a collective's"
            if src is not None and dst is not None:
                name = f"{self._regions[src]} → {self._regions[dst]}"
            kinds = links.setdefault(name, {})
            kinds[KINDS.get(kind, kind)] = kinds.get(KINDS.get(kind, kind), 0) + nbytes
        several = sorted(links.items(), key=lambda link: -sum(link[1].values()))
        for name, kinds in several[:LINKS]:
            yield name, ", ".join(sorted(kinds)), size(sum(kinds.values()))
        if rest := several[LINKS:]:
            yield f"{len(rest)} more", "", size(sum(sum(kinds.values()) for _, kinds in rest))
