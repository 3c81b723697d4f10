"""What every aggregator must do, of each rule and of its ways."""

from __future__ import annotations

from halos.testing.conformance import AggregatorConformance


class TestRules(AggregatorConformance):
    """Those that give identical payloads back and have no scale of their own."""

    sections = (
        {"name": "trimmed_mean"},
        {"name": "trimmed_mean", "b": 0},
        {"name": "trimmed_mean", "b": 3, "exchange": "sharded"},
        {"name": "median"},
        {"name": "median", "exchange": "sharded"},
        {"name": "krum", "f": 2},
        {"name": "krum", "f": 2, "exchange": "sharded"},
        {"name": "multi_krum", "f": 2},
        {"name": "multi_krum", "f": 1, "m": 3},
        {"name": "geometric_median"},
        {"name": "geometric_median", "per": "tensor", "exchange": "sharded"},
        {"name": "centred_clipping"},
        {"name": "centred_clipping", "per": "tensor", "exchange": "iterated"},
        {"name": "edit", "scale_free": True, "warmup": None},
        {"name": "edit", "scale_free": True, "warmup": 1, "threshold": 20.0, "per": "model", "by_steps": 0.5},
        {"name": "ties"},
        {"name": "ties", "elect": "count"},
        {"name": "trust"},
    )


class TestRulesWithAScale(AggregatorConformance):
    """EDiT's temperature is a length."""

    homogeneous = False
    sections = ({"name": "edit"},)


class TestRulesThatShorten(AggregatorConformance):
    """Votes lose magnitudes."""

    keeps_identical = False
    sections = ({"name": "sign_majority"},)


class TestRulesThatShortenToAScale(AggregatorConformance):
    """So do clips, and a fixed radius from where the last aggregate was; with one collective to warm up nearly all are
    outliers."""

    homogeneous = keeps_identical = False
    sections = (
        {"name": "sign_majority", "scale": 0.1},
        {"name": "centred_clipping", "radius": 0.5},
        {"name": "edit", "clip": 0.5, "warmup": 1},
    )
