"""The built-in observers, and `observers:`, which turns them and those of plugins on."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos.errors import require
from halos.observers.observer import Observer

RECORDS = ("all", "commits", "none")


@dataclass
class ObserverOptions:
    """What a run shows and writes as it goes: the built-in observers, and others by name."""

    progress: bool = True  # a live line on stderr; plain lines, now and then, if that is no terminal
    tensorboard: bool = True  # `events.out.tfevents…`: curves and charts on the simulated clock, HParams, a timeline
    trace: bool = True  # `trace.json`, a timeline for <https://ui.perfetto.dev>
    records: str = "all"  # which record files: `all`, `commits` (no updates, no transfers) or `none` (evaluations only)
    results: bool = False  # `results.pt`, with the original simulator's keys
    # Observers of plugins, each by its registered name: `{name: {options}}`; `{}` or true: with its defaults; null or
    # false: not, where a file that is extended turns it on.
    extra: dict[str, Observer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.records in RECORDS, "records", self.records, f"one of {', '.join(RECORDS)}")


def build(options: ObserverOptions) -> list[object]:
    """The observers that are turned on, to be registered in this order."""
    # Not at the top: whoever only reads a config needs neither rich nor torch.
    from halos.observers.jsonl import recorder
    from halos.observers.progress import Progress
    from halos.observers.results import Results
    from halos.observers.tensorboard.observer import TensorBoard
    from halos.observers.trace.observer import Trace

    observers: list[object] = [recorder(options.records)]
    if options.tensorboard:
        observers.append(TensorBoard())
    if options.trace:
        observers.append(Trace())
    if options.results:
        observers.append(Results())
    if options.progress:
        observers.append(Progress())
    return [*observers, *options.extra.values()]
