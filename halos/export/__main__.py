"""The command `python -m halos.export RUN --to hf FOLDER`: a finished run's model for other software."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from halos.command import Parser, mistake
from halos.config.config import load_config
from halos.config.paths import expanded
from halos.errors import UserError, did_you_mean
from halos.export import finished, formats

FORMATS = ("hf", "safetensors")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m halos.export",
        description="Write the model that a finished run has trained as files that other software reads.",
        epilog="docs/export.md has more.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, for example runs/quickstart")
    parser.add_argument(
        "--to",
        nargs=2,
        required=True,
        metavar=("FORMAT", "PATH"),
        help="`hf FOLDER`, which transformers loads, or `safetensors FILE`, the tensors by name",
    )
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE|MODULE", help="load the model's plugin")
    parser.add_argument(
        "--without-plugin", action="append", default=[], metavar="PACKAGE", help="leave an installed package's out"
    )
    asked = parser.parse_args(arguments)
    form, path = asked.to[0], expanded(asked.to[1])
    try:
        if form not in FORMATS:
            raise UserError(f"--to: {form!r} is none of {', '.join(FORMATS)}{did_you_mean(form, FORMATS)}")
        run = finished.load(Path(expanded(asked.run)))
        if form == "safetensors":
            formats.safetensors(run, Path(path))
        else:
            resolved = str(run.folder / "config.yaml")
            config, plugins = load_config(resolved, plugins=asked.plugin, without=asked.without_plugin)
            name = plugins.name_of(type(config.model)) or type(config.model).__name__
            formats.hf(run, config, name, Path(path))
    except UserError as error:
        return mistake(error)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
