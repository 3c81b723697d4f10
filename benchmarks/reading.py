"""How fast records are read: a million updates and a million commits, from files to columns."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import halos
from halos.config.config import resolved
from halos.run.lifecycle import run
from halos.testing import tiny

FILES = {"updates.jsonl": "updates", "commits.jsonl": "commits", "transfers.jsonl": "transfers"}


def grown(folder: Path, records: int) -> None:
    """A short run's folder, its files repeated until they hold so many records: only their size is of interest."""
    config, plugins = resolved(tiny(out=str(folder), observers={"progress": False, "trace": False}))
    run(config, plugins)
    for name in FILES:
        text = (folder / name).read_bytes()
        with (folder / name).open("wb") as file:
            for _ in range(-(-records // text.count(b"\n"))):
                file.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        grown(Path(folder) / "run", options.records)
        records = halos.read(Path(folder) / "run")
        for name, columns in FILES.items():
            size = (records.folder / name).stat().st_size
            began = time.process_time()
            rows = len(getattr(records, columns))
            seconds = time.process_time() - began
            found[name] = {"rows": rows, "megabytes": size / 1e6, "processor_seconds": seconds}
            print(f"{name}: {rows:,} records, {size / 1e6:.0f} MB, {seconds:.1f} s, {1e6 * seconds / rows:.1f} µs each")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
