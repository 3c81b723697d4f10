"""The command line of `halos`, or `python -m halos.run`: what was asked for, done, and its end as an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

from halos.command import FAILED, INTERRUPTED, Parser, mistake
from halos.config.config import Config, load_config, named_plugins
from halos.config.paths import expanded
from halos.config.sections import to_sections
from halos.config.yaml_text import to_yaml
from halos.errors import Died, Diverged, Lost, UserError, shown
from halos.plugins.registry import Plugins
from halos.resume.checkpoint import Checkpoint
from halos.run import resuming
from halos.run.lifecycle import run
from halos.sim.clock import Deadlock
from halos.sim.limits import Hopeless

logger = logging.getLogger("halos.run")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("halos").setLevel(logging.INFO)
    policy = None
    try:
        if _told(options):
            return 0
        config, found, earlier = _loaded(options)
        policy = found.name_of(type(config.policy))
        if options.show_config:
            print(to_yaml(to_sections(config, found)), end="")
            for line in config.dropped:
                logger.warning(line)
            return 0
        summary, cluster = run(config, found, earlier, options.overwrite)
        from halos.run import report

        report.show(summary, config.folder, [region.name for region in cluster.regions])
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        code = ended(error, policy)
        if code is None:
            raise
        return code
    return 0


def ended(error: BaseException, policy: Optional[str]) -> Optional[int]:
    """Say on stderr, in a line, how `error` ended a run of `policy`; the exit code. None: it is no such end."""
    if isinstance(error, UserError):
        return mistake(error)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; what was recorded until then is kept", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, (Diverged, Died)):
        said = f"{error}; what was recorded until then is kept"
    elif isinstance(error, Deadlock):
        said = f"{'' if isinstance(error, Hopeless) else 'the policy is stuck: '}{error}"
    elif isinstance(error, Lost):
        said = f"policy {policy} does not go on without what is lost: {error}"
    else:
        return None
    print(f"stopped: {said}", file=sys.stderr)
    return FAILED


def _told(options: argparse.Namespace) -> bool:
    """Tell what there is, if that is what was asked for."""
    if not options.list_plugins and options.explain is None:
        return False
    from halos.run import explain  # loads rich, as report does: only who prints tables waits for it

    plugins = Plugins(named_plugins({}, options.plugin), options.without_plugin)
    if options.list_plugins:
        explain.list_plugins(plugins)
    else:
        explain.explain(options.explain, plugins)
    return True


def _loaded(options: argparse.Namespace) -> tuple[Config, Plugins, Optional[Checkpoint]]:
    """The configuration to run, its plugins, and the checkpoint to go on from."""
    plugins, without = named_plugins({}, options.plugin), options.without_plugin
    if options.resume is None:
        return *load_config(_config_file(options.config), options.overrides, plugins, without), None
    if options.overwrite:
        raise UserError("--overwrite: a run that is resumed goes on in its folder; give one of the two")
    changes = [change for change in (options.config, *options.overrides) if change is not None]
    if options.config is not None and "=" not in options.config:
        said = "a run has its configuration with it; only key=value may follow"
        raise UserError(f"--resume: {said}, and {shown(options.config)} is none")
    return resuming.load_run(Path(expanded(options.resume)), changes, plugins, without)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m halos.run",
        description="Train with local SGD for real while simulating the clock of a geo-distributed cluster.",
        epilog="Every key: --explain all, or docs/reference/config.md; plugins: docs/plugins.md.",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file, for example configs/quickstart.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="replaces one value, for example policy.outer.lr=0.5"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="load a plugin beside the installed ones"
    )
    parser.add_argument(
        "--without-plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="leave the plugins of an installed package out, for example one that is broken",
    )
    parser.add_argument(
        "--list-plugins", action="store_true", help="list every component by kind, and where it comes from"
    )
    parser.add_argument(
        "--explain",
        metavar="WHAT",
        help="keys, types, defaults and meaning of a section (train), a component (policy.halos), or all",
    )
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="go on with an interrupted run from its last checkpoint, or with a larger budget",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run that is in the run folder, once the new one can begin"
    )
    parser.add_argument("--show-config", action="store_true", help="print the resolved configuration and stop")
    return parser


def _config_file(named: Optional[str]) -> str:
    example = "try: python -m halos.run configs/quickstart.yaml"
    if named is None:
        raise UserError(f"no configuration given; {example}")
    if "=" in named and not os.path.exists(expanded(named)):
        raise UserError(f"{shown(named)} is no file; the configuration comes first, {example} {named}")
    return named


def command() -> NoReturn:
    """`halos`, and `python -m halos.run`: the process ends with the exit code.

    Plugins that are modules are looked for in the working directory as well, but last.
    """
    if "" not in sys.path:
        sys.path.append("")
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())


def terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # end as cleanly as by Ctrl-C: batch systems send SIGTERM
