"""The command as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from halos.compare.cli import main
from tests.compare.made_comparison import QUICK, make

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    other = {"corpus": "ffff0000", "data": {"path": "/corpora/two"}}
    make(tmp_path / "runs", [("other", 1, QUICK[1], other), ("timed", 1, [], {"executor": "timing"})])
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["runs", *arguments]) == 0
    return capsys.readouterr().out


def test_it_says_what_is_compared_with_what_and_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--baseline", "slow")
    assert text.startswith("6 runs in 4 groups, seeds 1, 2; baseline: slow\n")
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "runs/other-1-4: another corpus (hash ffff0000, not 0a1b2c3d) than runs/slow-1-0; its losses are" in flat
    assert "runs/timed-1-5: a timing run, without losses" in flat
    assert "every seed has a validation set of its own" in flat


def test_the_same_runs_give_the_same_output_bit_for_bit(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    files = [here / name for name in ("one.csv", "two.csv")]
    outputs = {said(capsys, "--prices", "0.02", "--csv", str(path)) for path in files}
    assert len(outputs) == 1 and len({path.read_bytes() for path in files}) == 1
    assert "wall" not in outputs.pop() and b"wall" not in files[0].read_bytes()
    assert "wall s" in said(capsys, "--wall")


def test_only_the_tables_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--tables", "differences,cost", "--baseline", "slow")
    titles = ("Validation loss minus slow's", "Cost per run", "Work per run", "Pareto front", "Until")
    assert [title for title in titles if title in text] == list(titles[:2])


def test_a_page_and_figures(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    pytest.importorskip("matplotlib")
    said(capsys, "--html", "page.html", "--figures", "figures", "--target-loss", "3,+0.5")
    page = (here / "page.html").read_text(encoding="utf-8")
    for text in ("another corpus (hash ffff0000", "Pareto front", "<svg", "is the target, 3."):
        assert text in page
    assert (here / "figures/loss.png").stat().st_size > 1000


def test_help_is_told_before_anything_heavy_is_loaded() -> None:
    last = (
        "import atexit, runpy, sys\n"
        "loaded = lambda: [name for name, each in sys.modules.items()"
        " if name in ('numpy', 'torch', 'matplotlib') and type(each).__name__ == 'module']\n"
        "atexit.register(lambda: print('loaded:', loaded()))\n"
        "sys.argv = ['compare', '--help']\n"
        "runpy.run_module('halos.compare', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", last], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("docs/compare.md has every number's definition.\nloaded: []\n"), done.stderr


def test_a_mistake_is_told_before_anything_is_written(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert main(["runs", "--csv", "all.csv", "--baseline", "nobody"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (here / "all.csv").exists()
