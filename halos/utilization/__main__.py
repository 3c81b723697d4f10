"""The command `python -m halos.utilization CONFIG`: how much bandwidth each method needs on each model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from halos.command import Parser, mistake
from halos.config.builder import Builder
from halos.config.config import named_plugins
from halos.config.defaults import Defaults
from halos.config.layers import merge, overrides, read
from halos.config.paths import expanded
from halos.config.references import interpolate, refers
from halos.errors import UserError
from halos.plugins.registry import Plugins
from halos.utilization import curves
from halos.utilization.options import Options


def load_options(
    config: str, changes: Sequence[str] = (), plugins: Sequence[str] = (), without: Sequence[str] = ()
) -> Options:
    """The configuration in file `config` with `key=value` changes on top; UserError says what is wrong with it."""
    section = merge(read(Path(expanded(config))), overrides(changes))
    named = named_plugins(interpolate(section, only="plugins"), plugins)
    found = Plugins(named, without)
    section = interpolate(Defaults(found).under(Options, section)) if refers(section) else section
    section["plugins"] = named
    options: Any = Builder(found).build(Options, section, "")
    assert isinstance(options, Options), "built from its own class"
    return options


def path(text: str) -> Path:
    """An option's path."""
    return Path(expanded(text))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m halos.utilization",
        description="The bandwidth that methods of synchronising need to keep a cluster computing.",
        epilog="The model and every key are explained in docs/utilization.md.",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file; docs/utilization.md explains it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces one value of it")
    parser.add_argument("--csv", type=path, metavar="FILE", help="write every curve, point by point")
    parser.add_argument("--plot", type=path, metavar="FILE", help="draw them (.png, .svg, .pdf; needs matplotlib)")
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE|MODULE", help="load a plugin's codecs")
    parser.add_argument(
        "--without-plugin", action="append", default=[], metavar="PACKAGE", help="leave an installed package's out"
    )
    asked = parser.parse_intermixed_args(arguments)
    try:
        if asked.config is None:
            raise UserError(f"no configuration given; try: {parser.prog} configs/utilization/streaming_table4.yaml")
        if asked.plot:
            curves.figure_class()  # complain before anything is written
        options = load_options(asked.config, asked.overrides, asked.plugin, asked.without_plugin)
        found = [curves.curve(model, method, options) for model in options.models for method in options.methods]
        if asked.csv:
            curves.write_csv(found, asked.csv)
        if asked.plot:
            curves.write_plot(found, asked.plot)
        curves.show(found, options.targets_percent)
    except UserError as error:
        return mistake(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
