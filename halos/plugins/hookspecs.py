"""Everything that can be extended, on one page.

*One of many, chosen by name in the config*: a plugin calls `register(name, component)` for each
class it brings. A component is a dataclass whose fields are its hyper-parameters (its section in
the config); what it must be able to do is a Protocol, and what it may have beyond that is in optional.py
(docs/reference/plugins.md has both).
*Event hooks*: every plugin that implements one is called, in order of virtual time. An exception in one ends the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from halos.hooks import Register, hookspec

if TYPE_CHECKING:
    from halos.observers.experiment import Experiment
    from halos.values.records import Commit, Evaluation, LostJob, Merge, Summary, Transfer, Update

# One of many, by name in the config


@hookspec
def register_sync_policies(register: Register) -> None:
    """Sync policies, which decide who trains from what, when, and how it is merged: `policy:`."""


@hookspec
def register_merge_rules(register: Register) -> None:
    """Merge rules, by which a server merges a pseudo-gradient: any field annotated `MergeRule`."""


@hookspec
def register_network_models(register: Register) -> None:
    """Network models, which say how long bytes take: `network:`."""


@hookspec
def register_step_allocations(register: Register) -> None:
    """Step allocations, which say how many local steps a job has: `steps:`."""


@hookspec
def register_contribution_weights(register: Register) -> None:
    """Contribution weights, which say how much unequal contributions count: `weights:`."""


@hookspec
def register_aggregators(register: Register) -> None:
    """Aggregators, which make one of a collective's payloads, and say what travels for that: `aggregate:`."""


@hookspec
def register_compute_models(register: Register) -> None:
    """Compute models, which say how long local steps take: `compute:`."""


@hookspec
def register_codecs(register: Register) -> None:
    """Codecs, which say what a payload becomes on the wire, in values and bytes: `codec:`."""


@hookspec
def register_fault_models(register: Register) -> None:
    """Fault models, which say what goes wrong, and when: `faults:`."""


@hookspec
def register_models(register: Register) -> None:
    """Models to be trained: `model:`."""


@hookspec
def register_data_sources(register: Register) -> None:
    """Data sources, to train and to evaluate on: `data:` and `evaluate.sets`."""


@hookspec
def register_executors(register: Register) -> None:
    """Executors, which train for real, or do not: `executor:`."""


@hookspec
def register_inner_optimizers(register: Register) -> None:
    """Inner optimizers, which say what a local step makes of a gradient: `train.optimizer`."""


@hookspec
def register_observers(register: Register) -> None:
    """Observers, which are told what happens, and write or show it: `observers.extra`."""


# Event hooks


@hookspec
def on_start(experiment: Experiment) -> None:
    """A run begins; its folder and its `config.yaml` exist."""


@hookspec
def on_resume(time: float) -> None:
    """A resumed run has told again all that happened up to virtual `time`, and goes on from there."""


@hookspec
def on_update(update: Update) -> None:
    """An update has arrived, at `update.time`."""


@hookspec
def on_lost(lost: LostJob) -> None:
    """A job was lost to a fault; told when its policy is, at `lost.time`."""


@hookspec
def on_transfer(transfer: Transfer) -> None:
    """A transfer or collective has ended, at `transfer.time` (a pull: told when its update arrives)."""


@hookspec
def on_commit(commit: Commit) -> None:
    """A server's model has changed."""


@hookspec
def on_merge(merge: Merge) -> None:
    """A merge rule in a field of the policy has made a step; the commit of what came of it follows, if it is one."""


@hookspec
def on_evaluate(evaluation: Evaluation) -> None:
    """A model was evaluated on one evaluation set."""


@hookspec
def on_finish(summary: Summary) -> None:
    """The run is over, one way or another; `summary` is what `summary.json` holds."""
