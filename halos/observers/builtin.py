"""The built-in observers, and `observers:`, which turns them on."""

from __future__ import annotations

from dataclasses import dataclass

from halos.errors import require

RECORDS = ("all", "commits", "none")


@dataclass
class ObserverOptions:
    """The built-in observers: what a run shows and writes as it goes."""

    progress: bool = True  # a live line on stderr; plain lines, now and then, if that is no terminal
    tensorboard: bool = True  # `events.out.tfevents…`: curves and charts on the simulated clock, HParams, a timeline
    trace: bool = True  # `trace.json`, a timeline for <https://ui.perfetto.dev>
    records: str = "all"  # which record files: `all`, `commits` (no updates, no transfers) or `none` (evaluations only)
    results: bool = False  # `results.pt`, with the original simulator's keys

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
