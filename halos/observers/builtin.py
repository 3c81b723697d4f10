"""The built-in observers, and `observers:`, which turns them on."""

from __future__ import annotations

from dataclasses import dataclass

from halos.errors import require

RECORDS = ("all", "commits", "none")


@dataclass
class ObserverOptions:
    """`observers:`."""

    progress: bool = True  # a live line on stderr
    tensorboard: bool = True  # events.out.tfevents…, on the simulated clock
    trace: bool = True  # trace.json, for ui.perfetto.dev
    records: str = "all"  # all | commits (no updates, no transfers) | none (evaluations only)
    results: bool = False  # results.pt, with upstream's keys

    def __post_init__(self) -> None:
        require(self.records in RECORDS, "records", self.records, f"one of {', '.join(RECORDS)}")


def build(options: ObserverOptions) -> list[object]:
    """The observers that are turned on, to be registered in this order."""
    # Not at the top: whoever only reads a config needs neither rich nor torch.
    from halos.observers.jsonl import recorder
    from halos.observers.progress import Progress
    from halos.observers.results import Results
    from halos.observers.tensorboard import TensorBoard
    from halos.observers.trace import Trace

    observers: list[object] = [recorder(options.records)]
    if options.tensorboard:
        observers.append(TensorBoard())
    if options.trace:
        observers.append(Trace())
    if options.results:
        observers.append(Results())
    if options.progress:
        observers.append(Progress())
    return observers
