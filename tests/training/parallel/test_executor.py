"""Training in several processes: the same bits as `inline`, whatever happens on the way."""

from __future__ import annotations

from halos.testing.conformance import ExecutorConformance


class TestConformance(ExecutorConformance):
    plugins = ["halos.training.parallel.executor"]
    sections = ({"name": "parallel", "processes": 2},)
    tolerance = 0.0
