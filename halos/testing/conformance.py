"""One conformance suite per kind of plugin, to inherit from in a test file; see docs/plugins.md."""

from halos.testing.allocations import StepsConformance
from halos.testing.coding import CodecConformance
from halos.testing.computing import ComputeConformance
from halos.testing.executing import ExecutorConformance
from halos.testing.models import ModelConformance
from halos.testing.networks import NetworkConformance
from halos.testing.policies import PolicyConformance
from halos.testing.rules import MergeRuleConformance
from halos.testing.sources import DataConformance
from halos.testing.weightings import WeightsConformance

__all__ = [
    "CodecConformance",
    "ComputeConformance",
    "DataConformance",
    "ExecutorConformance",
    "MergeRuleConformance",
    "ModelConformance",
    "NetworkConformance",
    "PolicyConformance",
    "StepsConformance",
    "WeightsConformance",
]
