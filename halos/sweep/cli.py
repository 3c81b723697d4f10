"""The command `python -m halos.sweep CONFIG key=a,b,c seed=0..4`: a grid of runs, from its cells to their table."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Optional

from halos.command import FAILED, INTERRUPTED, Parser, mistake
from halos.compare import cli as compare
from halos.compare.prices import Prices, prices
from halos.config.paths import expanded
from halos.errors import UserError, shown
from halos.observers.tensorboard import hparams
from halos.reading.run import read
from halos.run.cli import terminate
from halos.sweep.cells import Cell, Cells
from halos.sweep.folder import TIMING, Place, list_cells, opened, places, summary
from halos.sweep.grid import asked
from halos.sweep.pool import Ended, Pool
from halos.sweep.timing import front, pair
from halos.training.cores import cores

MANY = 60  # cells, of more than which nobody reads all differences to one of them

logger = logging.getLogger("halos.sweep")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is loaded: what forks has one thread
    # Whether there is a GPU must not be asked of CUDA here: once it has begun, forked processes cannot use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return _sweep(options)
    except UserError as error:
        return mistake(error)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on, with what its runs have kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _sweep(options: argparse.Namespace) -> int:
    if options.config is None:
        raise UserError("no configuration given; try: python -m halos.sweep configs/quickstart.yaml seed=0..2")
    measures = None if options.timing_first is None else pair(options.timing_first)
    priced = None if options.prices is None else prices(options.prices)
    if (priced is not None) is not ("dollars" in (measures or ())):
        raise UserError("--prices: belongs to --timing-first dollars,… and the other way round")
    files = [options.config, *(each for each in options.overrides if "=" not in each)]
    for each in files[1:]:
        if not Path(expanded(each)).is_file():
            raise UserError(
                f"{shown(each)} is neither key=value (for example seed=0..2) nor the file of a configuration"
            )
    grid = asked(files, [each for each in options.overrides if "=" in each], options.list)
    if options.out is None and len(files) > 1:
        raise UserError("--out DIR: several configurations have no name in common; say where their sweep is to be")
    folder = options.out or Path("runs") / f"{Path(options.config).stem}-sweep"
    combinations = list(grid.cells())
    if not combinations:
        raise UserError("without: leaves no cell")
    cells = Cells(folder, options.plugin, options.without_plugin).made(combinations)
    timed = []
    if measures is not None:
        timed = Cells(folder / TIMING, options.plugin, options.without_plugin).made(combinations, timed=True)
    jobs = options.jobs or _jobs(cells)
    from halos.sweep import table  # loads rich: whoever errs does not wait for it

    if options.dry_run:
        table.show_due(places(cells, folder), measures)
        return 0
    with opened(folder):
        for line in dict.fromkeys(line for cell in cells for line in cell.config.dropped):
            logger.warning(line)
        failed: list[Ended] = []
        if measures is not None:
            failed, cells = _chosen(cells, timed, folder / TIMING, jobs, measures, priced)
        axes = [axis.name for axis in grid.axes]
        found = places(cells, folder)
        list_cells(folder, axes, found)
        _tell_tensorboard(folder, axes, found)
        failed += _run(found, folder.name, jobs)
        table.show(axes, found)
        if table.comparable(found):
            if len(found) <= MANY:
                compare.main([str(folder), "--tables", "differences,front"])
            more = f"python -m halos.compare {shlex.quote(str(folder))} [--html FILE]"
            print(f"\nmore tables, and figures: {more}", file=sys.stderr)
    for each in failed:
        print(f"failed: {each.place.cell}: {each.problem}; see {each.place.log}", file=sys.stderr)
    return FAILED if failed else 0


def _tell_tensorboard(folder: Path, axes: Sequence[str], found: Sequence[Place]) -> None:
    """HParams has the axes as its columns, if runs have curves."""
    values = {axis: [place.cell.labels[axis] for place in found] for axis in axes}
    if values and any(place.cell.config.observers.tensorboard for place in found):
        with suppress(ImportError):  # then no run has curves, and each says why
            hparams.axes(folder, values)


def _chosen(
    cells: Sequence[Cell],
    timed: Sequence[Cell],
    folder: Path,
    jobs: int,
    measures: tuple[str, str],
    priced: Optional[Prices],
) -> tuple[list[Ended], list[Cell]]:
    """The cells on the front of two measures, and those that could not be timed."""
    from halos.sweep import table

    found = places(timed, folder)
    failed = _run(found, f"timing {folder.parent.name}", jobs)
    summaries = {}
    for cell, place in zip(cells, found, strict=True):
        came = summary(place.cell.folder)
        if came is not None and came.get("finished") is True:
            if priced is not None:
                came = {**came, "dollars": priced.dollars(read(place.cell.folder), came["bytes"])}
            summaries[cell.digest] = came
    groups = front(cells, summaries, measures)
    table.show_front(groups, measures)
    return failed, [cell for each in groups if each.beaten_by is None for cell in each.cells]


def _run(found: Sequence[Place], name: str, jobs: int) -> list[Ended]:
    """Run what has no result yet; those that came to none."""
    left = [place for place in found if not place.over]
    if not left:
        return []
    from halos.sweep.progress import Progress

    left[0].log.parent.mkdir(parents=True, exist_ok=True)
    pool = Pool(sorted(left, key=_work, reverse=True), jobs)
    progress = Progress(name, pool, len(found), len(found) - len(left))
    failed = []
    try:
        for each in pool.run(progress.look):
            progress.ended(each)
            if each.problem is not None:
                failed.append(each)
    finally:
        progress.close()
    order = {place.cell.digest: index for index, place in enumerate(found)}
    return sorted(failed, key=lambda each: order[each.place.cell.digest])


def _work(place: Place) -> float:
    """How much there is to train, as far as the configuration says it: the longest runs come first."""
    config = place.cell.config
    tokens = config.train.batch_size * config.data.sequence_length
    return min(config.budget.steps(tokens), config.budget.trained(tokens)) * tokens


def _jobs(cells: Sequence[Cell]) -> int:
    """As many processes as there are cores for this one, by the most threads, or processes, that a cell has."""
    return max(1, cores() // max(_cores_of(cell.config.executor) for cell in cells))


def _cores_of(executor: Any) -> int:
    processes = getattr(executor, "processes", 1)
    several: int = getattr(executor, "threads", 1) * (cores() if processes == "auto" else processes)
    return several


def _parser() -> Parser:
    parser = Parser(
        prog="python -m halos.sweep",
        description="Run a grid of configurations in parallel processes; the same command again goes on with it.",
        epilog="Grid files, what is skipped and what is resumed: docs/sweep.md.",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG|GRID", help="a run's YAML file, or one that has axes")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=a,b,c",
        help="an axis of the grid: every value, or seed=0..4; key=value is for all cells",
    )
    parser.add_argument("--jobs", type=_count, metavar="N", help="processes at once; default: as many as cores")
    parser.add_argument("--out", type=_path, metavar="DIR", help="its folder; default: runs/NAME-sweep")
    parser.add_argument("--list", type=_path, metavar="FILE", help="cells, a line each: label: key=value key=value")
    parser.add_argument("--dry-run", action="store_true", help="list the cells, and what would be done, and stop")
    parser.add_argument(
        "--timing-first",
        metavar="A,B",
        help="time every cell without training; train those that no other beats in both (simulated_seconds,bytes)",
    )
    parser.add_argument("--prices", metavar="FILE|X", help="for --timing-first dollars,…: as for halos.compare")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="load a plugin beside the installed ones"
    )
    parser.add_argument(
        "--without-plugin", action="append", default=[], metavar="PACKAGE", help="leave an installed package's out"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a positive number of processes")
    return int(text)


def _path(text: str) -> Path:
    if not text.strip():  # as of a variable that is not set
        raise argparse.ArgumentTypeError("'' is no path")
    return Path(expanded(text))


def command() -> NoReturn:
    """`python -m halos.sweep`: the process ends with the exit code."""
    if "" not in sys.path:
        sys.path.append("")
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())
