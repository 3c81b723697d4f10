"""`python -m halos.run CONFIG [key=value …]`: one run from its configuration to its summary."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import torch
from rich.console import Console
from rich.table import Table

from halos import observers, report
from halos.assembly import assemble
from halos.builder import to_sections
from halos.clock import Deadlock
from halos.config import Config, load
from halos.errors import ConfigError, Diverged, UserError
from halos.experiment import Experiment
from halos.layers import to_yaml
from halos.plugins import Plugins
from halos.records import Summary
from halos.simulation import Simulation
from halos.tally import Tally

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def run(config: Config, plugins: Plugins) -> Summary:
    """Run `config` and return its summary; the run folder holds everything else.

    A run that is interrupted, diverges or fails still writes its summary (`finished` says how it
    ended) before the exception goes on. Raises UserError before anything is written if something
    in the configuration cannot be used.
    """
    folder = config.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "out", f"{folder} exists already and is not empty; choose another name=… or out=…, or delete it"
        )
    began = time.monotonic()
    experiment, simulation = assemble(config, plugins)
    tally = Tally(experiment.cluster)
    for observer in (tally, *observers.build(config.observers)):
        plugins.manager.register(observer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(experiment.config))
    except OSError as error:
        raise ConfigError("out", f"{folder} cannot be written: {error.strerror}") from None
    finished: Union[bool, str] = True
    plugins.manager.hook.on_start(experiment=experiment)
    try:
        simulation.run(config.policy)
        _save_model(simulation, folder)
    except BaseException as error:
        finished = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {error}"
        raise
    finally:
        summary = _summarise(config, experiment, simulation, tally, time.monotonic() - began, finished)
        plugins.manager.hook.on_finish(summary=summary)
        config.executor.close()
    return summary


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("halos").setLevel(logging.INFO)
    try:
        if options.list_plugins:
            _list_plugins(Plugins(options.plugin))
            return 0
        if options.config is None:
            raise UserError("no configuration given; try: python -m halos.run configs/quickstart.yaml")
        config, plugins = load(options.config, options.overrides, options.plugin)
        if options.show_config:
            print(to_yaml(to_sections(config, plugins)), end="")
            return 0
        summary = run(config, plugins)
        report.show(summary, config.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except Diverged as error:
        print(f"stopped: {error}; what was recorded until then is kept", file=sys.stderr)
        return FAILED
    except Deadlock as error:
        print(f"stopped: the policy is stuck: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; what was recorded until then is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m halos.run",
        description="Train with local SGD for real while simulating the clock of a geo-distributed cluster.",
        epilog="Every key is explained in docs/config.md; plugins in docs/plugins.md.",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file, for example configs/quickstart.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="replaces one value, for example policy.outer.lr=0.5"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="load a plugin beside the installed ones"
    )
    parser.add_argument(
        "--list-plugins", action="store_true", help="list every component by kind, and where it comes from"
    )
    parser.add_argument("--show-config", action="store_true", help="print the resolved configuration and stop")
    return parser


def _list_plugins(plugins: Plugins) -> None:
    table = Table("kind", "name", "from", "what", box=None, header_style="bold")
    for kind, components in plugins.components.items():
        for component in sorted(components.values(), key=lambda each: each.name):
            table.add_row(kind, component.name, component.origin, component.summary)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240  # for grep: one line each
    console.print(table)


def _save_model(simulation: Simulation, folder: Path) -> None:
    if not simulation.params.hollow:
        state = {name: tensor.clone() for name, tensor in simulation.params.tensors().items()}
        try:
            torch.save(state, folder / "model.pt")
        except (OSError, RuntimeError) as error:
            raise UserError(f"{folder / 'model.pt'} cannot be written: {error}") from None


def _summarise(
    config: Config,
    experiment: Experiment,
    simulation: Simulation,
    tally: Tally,
    wall_seconds: float,
    finished: Union[bool, str],
) -> Summary:
    ledger = simulation.ledger
    books = tally.finish(simulation.now, simulation.running, simulation.reducing)
    computing = sum(worker["compute"] for worker in books["workers"]) / len(books["workers"])
    policy_report: Any = getattr(config.policy, "report", dict)  # optional: a policy's own numbers
    return {
        "name": experiment.name,
        "policy": experiment.policy,
        "seed": experiment.seed,
        **books,
        "wall_seconds": wall_seconds,
        "tokens": ledger.trained * experiment.tokens_per_step,
        "steps": {
            "trained": ledger.trained,
            "committed": ledger.committed,
            "dropped": ledger.dropped,
            "in_flight": ledger.in_flight,
        },
        "data": config.executor.describe(),
        "goodput": computing * ledger.committed / ledger.trained if ledger.trained else None,
        "policy_report": policy_report(),
        "versions": experiment.versions,
        "finished": finished,
    }


if __name__ == "__main__":
    sys.exit(main())
