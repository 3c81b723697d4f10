"""Run the tests marked `gpu` and measure what a run costs on a GPU, in five minutes: docs/results/gpu.json."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

import torch

from benchmarks.gpu.parts import PARTS, TESTS, Bar, Part, tiny
from benchmarks.gpu.race import LEAST, MOST, ROOT, Unmeasured, race, ratios, spread

RESULTS = ROOT / "docs/results/gpu.json"
FILE = "tests/training/test_gpu.py"
PATIENCE = 10  # times the time of a GPU, on whatever CPU this is tried out
NOTHING: dict[str, Optional[float]] = {"median": None, "min": None, "max": None}  # not measured


def tests(deadline: float, arguments: Sequence[str]) -> dict[str, Any]:
    """How many tests passed, failed and were skipped; null, and why, if they could not be run in time."""
    unknown = {"passed": None, "failed": None, "skipped": None}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *arguments,
            FILE,
        ]
        try:
            subprocess.run(command, cwd=ROOT, timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return {**unknown, "why": "the tests were not done in time"}
        suites = list(ElementTree.parse(report).getroot().iter("testsuite")) if report.exists() else []
    if not suites or suites[0].attrib["tests"] == "0":
        return {**unknown, "why": "pytest ran no test"}
    (suite,) = suites
    total, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped, "why": None}


def measured(part: Part, deadline: float, most: int = MOST) -> dict[str, Any]:
    """A part's figures, each with its spread; null, and why, where they could not be taken."""
    try:
        found, why = race(part.contestants, deadline, most), None
    except Unmeasured as error:
        found, why = None, str(error)
    first = next(iter(part.contestants.values()))
    return {
        "title": part.title,
        "size": first.size,
        "workers": first.workers,
        "device": first.device,
        "ratios": [judged(bar, found, first.device) for bar in part.bars],
        "tokens_per_second": {
            name: NOTHING if found is None else spread(found["rates"][name]) for name in part.contestants
        },
        "peak_bytes": {name: None if found is None else found["peak_bytes"][name] for name in part.contestants},
        "why": why,
    }


def judged(bar: Bar, found: Optional[dict[str, Any]], device: str) -> dict[str, Any]:
    """A ratio and whether it is what is asked for; of a CPU nothing is."""
    figures = NOTHING if found is None else spread(ratios(found["rates"], bar.over, bar.under))
    middle = figures["median"]
    holds = None if middle is None or device == "cpu" else middle >= bar.least
    return {"what": f"{bar.over} over {bar.under}", **figures, "bar": bar.least, "holds": holds}


def written(result: dict[str, Any], file: Optional[Path]) -> None:
    """After each part, so that what was measured is there whatever happens next."""
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")


def told(name: str, found: dict[str, Any]) -> None:
    for ratio in found["ratios"]:
        said = f"not measured ({found['why']})"
        if ratio["median"] is not None:
            verdict = {None: "no GPU, no verdict", True: "holds", False: "MISSED"}[ratio["holds"]]
            said = f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f}): {verdict}"
        print(f"{name:20s} {ratio['what']:22s} bar {ratio['bar']:4.2f}: {said}", flush=True)


def main(given: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help=f"instead of {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--tiny", action="store_true", help="all of it on the CPU, to see that it works")
    options = parser.parse_args(given)
    if not options.tiny and not torch.cuda.is_available():
        print(
            "error: there is no GPU here that PyTorch can use; --tiny tries everything out on the CPU", file=sys.stderr
        )
        return 2
    file = options.json if options.json is not None or options.tiny else RESULTS
    began = end = time.monotonic()
    result: dict[str, Any] = {
        "card": None if options.tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seconds": None,
        "tests": None,
        "parts": {},
    }
    for name, part in PARTS.items():
        end += part.seconds * (PATIENCE if options.tiny else 1)
        found = measured(tiny(part), end, LEAST) if options.tiny else measured(part, end)
        result["parts"][name] = found
        told(name, found)
        written(result, file)
    end += TESTS * (PATIENCE if options.tiny else 1)
    result["tests"] = tests(end, ["-k", "cpu and (fp16 or waits)"] if options.tiny else ["-m", "gpu"])
    result["seconds"] = time.monotonic() - began
    print(f"tests: {json.dumps(result['tests'])}; {result['seconds']:.0f} s in all")
    written(result, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
