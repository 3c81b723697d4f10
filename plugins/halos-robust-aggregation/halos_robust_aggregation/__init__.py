"""Robust aggregation: rules that replace the mean of a collective, and workers that send what is not so."""

from __future__ import annotations

from halos import Register, hookimpl

from .byzantine import Byzantine
from .centred_clipping import CentredClipping
from .coordinates import Median, TrimmedMean
from .edit import EDiT
from .geometric_median import GeometricMedian
from .krum import Krum, MultiKrum
from .signs import SignMajority, Ties
from .trust import Trust


@hookimpl
def register_aggregators(register: Register) -> None:
    register("trimmed_mean", TrimmedMean)
    register("median", Median)
    register("krum", Krum)
    register("multi_krum", MultiKrum)
    register("geometric_median", GeometricMedian)
    register("centred_clipping", CentredClipping)
    register("edit", EDiT)
    register("sign_majority", SignMajority)
    register("ties", Ties)
    register("trust", Trust)


@hookimpl
def register_fault_models(register: Register) -> None:
    register("byzantine", Byzantine)
