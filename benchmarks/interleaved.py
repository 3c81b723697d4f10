"""One benchmark in two checkouts, in turns, so that a slow moment of the machine hits both: ratios, after over before.

python -m benchmarks.interleaved BEFORE events --rounds 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parents[1]


def measured(checkout: Path, benchmark: str, arguments: list[str]) -> dict[str, float]:
    """What one turn of it came to, by name."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--repeats", "1", "--json", str(result), *arguments]
        subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(result.read_text())
    return {name: numbers["median"] for name, numbers in found.items() if "median" in numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE", help="the folder of the other checkout")
    parser.add_argument("benchmark", help="a module of benchmarks that takes --repeats and --json")
    parser.add_argument("--rounds", type=int, default=5)
    options, arguments = parser.parse_known_args()
    ratios: dict[str, list[float]] = {}
    for turn in range(options.rounds):
        first, second = (options.before, HERE) if turn % 2 else (HERE, options.before)
        found = {checkout: measured(checkout, options.benchmark, arguments) for checkout in (first, second)}
        before, after = found[options.before], found[HERE]
        for name in before.keys() & after.keys():
            ratios.setdefault(name, []).append(after[name] / before[name])
    for name, several in sorted(ratios.items()):
        spread = f"from {min(several):.3f} to {max(several):.3f}"
        print(f"{name:60s} after / before: median {median(several):.3f}   {spread}")


if __name__ == "__main__":
    main()
