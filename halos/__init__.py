"""A simulator for low-communication training: real local SGD under a virtual clock."""

import halos.lazy  # noqa: F401 - before all others
from halos.errors import ConfigError, Diverged, Lost, UserError, require
from halos.hooks import Register, hookimpl
from halos.sim.clock import Event, all_of, arrived, first_of
from halos.values.params import Layout, Params
from halos.values.records import Commit, Contribution, Evaluation, Transfer, Update

__all__ = [
    "Commit",
    "ConfigError",
    "Contribution",
    "Diverged",
    "Evaluation",
    "Event",
    "Layout",
    "Lost",
    "Params",
    "Register",
    "Transfer",
    "Update",
    "UserError",
    "all_of",
    "arrived",
    "first_of",
    "hookimpl",
    "require",
]
