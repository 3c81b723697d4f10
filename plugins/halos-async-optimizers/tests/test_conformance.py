"""They do what merge rules and policies must do."""

from __future__ import annotations

from typing import Any

from halos.testing.conformance import MergeRuleConformance, PolicyConformance

PLUGINS = ["halos_async_optimizers"]
AHEAD = {"name": "mla", "ahead": True}


class TestMergeRules(MergeRuleConformance):
    plugins = PLUGINS
    sections = (
        {"name": "mla"},
        {"name": "mla", "ahead": True, "lr": 0.3},
        {"name": "heloco"},
        {"name": "heloco", "per": "model", "rho": 0.5},
        {"name": "poly_thres", "threshold": 2, "outer": {"name": "delayed_nesterov", "buffer": 3}},
        {"name": "cgad", "outer": {"name": "adam", "lr": 0.01}},
        {"name": "cgad", "gate": "none", "cutoff": None, "outer": {"name": "sgd"}},
        {"name": "gap_aware"},
        {"name": "gap_aware", "per": "model"},
        {"name": "compensated"},
        {"name": "compensated", "adaptive": True},
        {"name": "poly", "outer": {"name": "gap_aware", "outer": {"name": "compensated", "outer": AHEAD}}},
    )

    def elementwise(self, section: dict[str, Any]) -> bool:
        return section["name"] != "heloco" and section.get("per") != "model"

    def tolerance(self, section: dict[str, Any]) -> float:
        return 1e-3 if section.get("outer", {}).get("name") == "adam" else 1e-6


class TestPolicies(PolicyConformance):
    plugins = PLUGINS
    sections = (
        {"name": "buffered", "buffer": 2, "outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.3}},
        {
            "name": "async_local_sgd",
            "outer": {"name": "poly_thres", "outer": {"name": "gap_aware", "outer": {"name": "heloco", "lr": 0.2}}},
        },
        {
            "name": "halos",
            "local_updates": 2,
            "outer": {"name": "poly", "outer": {"name": "mla", "lr": 0.4, "momentum": 0.5, "ahead": True}},
            "local": {"name": "compensated", "outer": {"name": "heloco", "lr": 0.3, "momentum": 0.5}},
        },
    )
