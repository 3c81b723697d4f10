"""Outer optimizers for updates that come late, one by one: merge rules, rules around rules, and two policies."""

from __future__ import annotations

from halos import Register, hookimpl

from .buffered import Buffered
from .compensated import Compensated
from .dana import Dana
from .decayed import CGAD, Poly, PolyThres
from .gap_aware import GapAware
from .heloco import HeLoCo
from .mla import MLA


@hookimpl
def register_merge_rules(register: Register) -> None:
    register("mla", MLA)
    register("heloco", HeLoCo)
    register("poly", Poly)
    register("poly_thres", PolyThres)
    register("cgad", CGAD)
    register("gap_aware", GapAware)
    register("compensated", Compensated)


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("buffered", Buffered)
    register("dana", Dana)
