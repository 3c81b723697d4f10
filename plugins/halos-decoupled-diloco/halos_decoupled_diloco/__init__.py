"""Decoupled DiLoCo: learners that wait for nobody, and syncers that need only a quorum (arXiv 2604.21428)."""

from __future__ import annotations

from halos import Register, hookimpl

from .policy import DecoupledDiLoCo


@hookimpl
def register_sync_policies(register: Register) -> None:
    register("decoupled_diloco", DecoupledDiLoCo)
