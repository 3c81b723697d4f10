"""`python -m halos.run CONFIG [key=value …]`: one run from its configuration to its summary."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn, Optional, Union

import torch
from rich.console import Console
from rich.table import Table

from halos import cluster as clusters
from halos import folder as folders
from halos import observers, report, resume, summary
from halos.assembly import assemble
from halos.builder import to_sections
from halos.checkpoint import Checkpoint
from halos.clock import Deadlock
from halos.command import FAILED, INTERRUPTED, Parser, mistake
from halos.config import Config, load
from halos.errors import ConfigError, Diverged, Lost, UserError, shown
from halos.experiment import Experiment
from halos.jobs import Hopeless
from halos.plugins import Plugins
from halos.records import Summary
from halos.simulation import Simulation
from halos.tally import Tally
from halos.tape import Strayed
from halos.yaml_text import to_yaml

logger = logging.getLogger("halos.run")


def run(config: Config, plugins: Plugins, resumed: Optional[Checkpoint] = None) -> Summary:
    """Run `config` and return its summary; the run folder holds everything else.

    With `resumed` it goes on from that checkpoint, in the same folder (see halos.resume).

    A run that is interrupted, diverges or fails still writes its summary (`finished` says how it
    ended) before the exception goes on. Raises UserError before anything is written if something
    in the configuration cannot be used.
    """
    if resumed is None:
        folders.refuse_used(config.folder)
    began = time.monotonic()
    with ExitStack() as stack:
        if resumed is not None:
            stack.enter_context(folders.locked(config.folder))
            folders.refuse_unwritable(config.folder)
        experiment, simulation, checkpointing = assemble(config, plugins, resumed)
        stack.callback(config.executor.close)
        tally = Tally(experiment.cluster)
        # pluggy calls whoever was registered last first: the books and the records, so that the rest may fail.
        for observer in reversed((tally, *observers.build(config.observers))):
            plugins.manager.register(observer)
        if resumed is None:
            stack.enter_context(_begin(experiment, plugins))
        else:
            plugins.manager.hook.on_start(experiment=experiment)
        between = None
        if checkpointing is not None:
            between = checkpointing.between
            checkpointing.on_live = partial(_go_on, experiment, plugins)
            began -= checkpointing.wall_before

        def finish(finished: Union[bool, str]) -> Summary:
            made = summary.summarise(config, experiment, simulation, tally, time.monotonic() - began, finished)
            plugins.manager.hook.on_finish(summary=made)
            return made

        try:
            simulation.run(config.policy, between)
            if checkpointing is not None and checkpointing.replaying:
                raise Strayed("it ends before its checkpoint")
            _refuse_fruitless(config, simulation)
            _save_model(simulation, config.folder)
        except BaseException as error:
            if checkpointing is not None and checkpointing.replaying:  # nothing has been touched yet
                if isinstance(error, Exception) and not isinstance(error, UserError):
                    raise checkpointing.refusal(error) from error
                raise
            try:
                finish(summary.ended_by(error))
            except Exception as another:  # must not hide the first
                logger.error("the end of the run could not be recorded: %s", another)
            raise
        return finish(True)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("halos").setLevel(logging.INFO)
    try:
        if options.list_plugins:
            _list_plugins(Plugins(options.plugin))
            return 0
        earlier = None
        if options.resume is not None:
            changes = [each for each in (options.config, *options.overrides) if each is not None]
            config, plugins, earlier = resume.load(Path(options.resume), changes, options.plugin)
        else:
            config, plugins = load(_config_file(options.config), options.overrides, options.plugin)
        if options.show_config:
            print(to_yaml(to_sections(config, plugins)), end="")
            return 0
        came = run(config, plugins, earlier)
        report.show(came, config.folder, [region.name for region in clusters.build(config.cluster).regions])
    except UserError as error:
        return mistake(error)
    except Diverged as error:
        print(f"stopped: {error}; what was recorded until then is kept", file=sys.stderr)
        return FAILED
    except Deadlock as error:
        stuck = "" if isinstance(error, Hopeless) else "the policy is stuck: "
        print(f"stopped: {stuck}{error}", file=sys.stderr)
        return FAILED
    except Lost as error:
        policy = plugins.name_of(type(config.policy))
        print(f"stopped: policy {policy} does not go on without what is lost: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; what was recorded until then is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _parser() -> Parser:
    parser = Parser(
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
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="go on with an interrupted run from its last checkpoint, or with a larger budget",
    )
    parser.add_argument("--show-config", action="store_true", help="print the resolved configuration and stop")
    return parser


def _config_file(named: Optional[str]) -> str:
    example = "try: python -m halos.run configs/quickstart.yaml"
    if named is None:
        raise UserError(f"no configuration given; {example}")
    if "=" in named and not os.path.exists(named):
        raise UserError(f"{shown(named)} is no file; the configuration comes first, {example} {named}")
    return named


def _list_plugins(plugins: Plugins) -> None:
    table = Table("kind", "name", "from", "what", box=None, pad_edge=False, header_style="bold")
    for kind, components in plugins.components.items():
        for component in sorted(components.values(), key=lambda each: each.name):
            table.add_row(kind, component.name, component.origin, component.summary)
    console = Console(highlight=False, markup=False, emoji=False)  # a docstring means its brackets
    if not console.is_terminal:
        console.width = 240  # for grep: one line each
    console.print(table)


@contextmanager
def _begin(experiment: Experiment, plugins: Plugins) -> Iterator[None]:
    """The run folder, locked, config.yaml in it, and the observers told; if that fails, nothing is left."""
    with ExitStack() as stack:
        with folders.made(experiment.folder, stack):
            _write_config(experiment)
            plugins.manager.hook.on_start(experiment=experiment)
        yield


def _go_on(experiment: Experiment, plugins: Plugins, time: float) -> None:
    """A resumed run goes on for real, from virtual `time`: under its present configuration."""
    plugins.manager.hook.on_resume(time=time)
    (experiment.folder / "summary.json").unlink(missing_ok=True)  # it is not over, as that may have said
    _write_config(experiment)


def _write_config(experiment: Experiment) -> None:
    path = experiment.folder / "config.yaml"
    try:
        path.write_text(to_yaml(experiment.config), encoding="utf-8")
    except OSError as error:
        raise ConfigError("out", f"{path} cannot be written: {error.strerror}") from None


def _refuse_fruitless(config: Config, simulation: Simulation) -> None:
    """Nothing came of it: no end to be called one, whatever the policy says."""
    ledger = simulation.ledger
    if ledger.trained and not ledger.committed and simulation.now < config.budget.seconds:
        why = simulation.lost_collective
        because = "has the policy forgotten sim.commit?" if why is None else f"collectives were lost: {why}"
        raise Hopeless(f"{ledger.trained} local steps trained and none committed; {because}")


def _save_model(simulation: Simulation, folder: Path) -> None:
    if not simulation.params.hollow:
        state = {name: tensor.detach().cpu().clone() for name, tensor in simulation.params.tensors().items()}
        path, part = folder / "model.pt", folder / "model.pt.part"
        try:
            torch.save(state, part)
            os.replace(part, path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise UserError(f"{path} cannot be written: {error}") from None


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # end as cleanly as by Ctrl-C: batch systems send SIGTERM


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
