"""For tests of plugins (and of halos): runs in memory here; fixtures and conformance suites, for pytest, beside it."""

from halos.run.cli import main
from halos.sim.transit.wire import Wire
from halos.testing.recording import TINY, Recording, record, tiny, tiny_run, two_workers
from halos.testing.situations import QuadraticProblem

__all__ = ["TINY", "QuadraticProblem", "Recording", "Wire", "main", "record", "tiny", "tiny_run", "two_workers"]
