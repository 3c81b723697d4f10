"""One conformance suite per kind of plugin, to inherit from in a test file; see docs/testing.md."""

from halos.testing.conformance.aggregators import AggregatorConformance
from halos.testing.conformance.codecs import CodecConformance
from halos.testing.conformance.compute import ComputeConformance
from halos.testing.conformance.data import DataConformance
from halos.testing.conformance.executors import ExecutorConformance
from halos.testing.conformance.inner_optimizers import InnerOptimizerConformance
from halos.testing.conformance.merge_rules import MergeRuleConformance
from halos.testing.conformance.models import ModelConformance
from halos.testing.conformance.networks import NetworkConformance
from halos.testing.conformance.observers import ObserverConformance
from halos.testing.conformance.policies import PolicyConformance
from halos.testing.conformance.steps import StepsConformance
from halos.testing.conformance.weights import WeightsConformance

__all__ = [
    "AggregatorConformance",
    "CodecConformance",
    "ComputeConformance",
    "DataConformance",
    "ExecutorConformance",
    "InnerOptimizerConformance",
    "MergeRuleConformance",
    "ModelConformance",
    "NetworkConformance",
    "ObserverConformance",
    "PolicyConformance",
    "StepsConformance",
    "WeightsConformance",
]
