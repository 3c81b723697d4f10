"""Curves: what bandwidth is needed, against a published table, in a file and in a plot."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from halos.utilization import __main__ as utilization
from halos.utilization import curves
from halos.utilization.cycle import Cycle

ROOT = Path(__file__).parents[2]


TABLE4 = ROOT / "configs/utilization/streaming_table4.yaml"


# Streaming DiLoCo (arXiv 2501.18512), Table 4: Gbit/s for 50, 80, 90, 95, 99 % of compute utilisation.
PUBLISHED = {
    ("1B", "data-parallel"): (86.8, 152.6, 184.2, 222.3, 569.0),
    ("1B", "DiLoCo"): (1.4, 6.2, 13.3, 23.3, 86.8),
    ("1B", "Streaming"): (1.4, 5.2, 9.1, 16.0, 28.1),
    ("1B", "Streaming + overlap"): (1.4, 4.3, 6.2, 9.1, 11.0),
    ("1B", "Streaming + overlap + FP4"): (0.4, 0.9, 1.7, 2.0, 3.0),
    ("10B", "data-parallel"): (104.8, 222.3, 222.3, 268.3, 471.5),
    ("10B", "DiLoCo"): (1.7, 7.5, 16.0, 33.9, 104.8),
    ("10B", "Streaming"): (1.7, 5.2, 9.1, 13.3, 19.3),
    ("10B", "Streaming + overlap"): (1.7, 3.6, 5.2, 6.2, 7.5),
    ("10B", "Streaming + overlap + FP4"): (0.4, 0.9, 1.4, 1.4, 1.7),
    ("100B", "data-parallel"): (184.2, 323.8, 390.7, 390.7, 471.5),
    ("100B", "DiLoCo"): (3.0, 11.0, 23.3, 49.4, 184.2),
    ("100B", "Streaming"): (2.4, 6.2, 9.1, 11.0, 19.3),
    ("100B", "Streaming + overlap"): (1.7, 3.6, 4.3, 5.2, 5.2),
    ("100B", "Streaming + overlap + FP4"): (0.5, 0.9, 1.1, 1.1, 1.4),
}


@pytest.fixture(scope="module")
def table4() -> list[curves.Curve]:
    options = utilization.load_options(str(TABLE4))
    return [curves.curve(model, method, options) for model in options.models for method in options.methods]


def test_full_utilisation_is_reached_where_the_link_is_fast_enough() -> None:
    gbps = np.array([1.0, 2.0, 3.0])
    curve = curves.Curve("model", "method", gbps, Cycle([[0]], 4, 4).utilization(0.1, 0.8 / gbps))
    assert [curve.needed(share) for share in (0.5, 0.6, 1.0)] == [1.0, 2.0, 2.0]  # 0.4 s to hide a reduction in


def test_the_published_table_is_met_within_one_point_of_its_grid(table4: list[curves.Curve]) -> None:
    away = []
    for curve in table4:
        for target, published in zip((0.5, 0.8, 0.9, 0.95, 0.99), PUBLISHED.get((curve.model, curve.method), ())):
            needed = curve.needed(target)
            assert needed is not None
            apart = np.log(needed / published) / np.log(10_000) * 49  # in points of 50 from 0.1 to 1000
            away.append(round(apart))
    assert len(away) == 75
    assert max(map(abs, away)) <= 1
    assert away.count(0) == 67  # at least 60 are asked for; the page says 67


def test_a_whole_round_for_the_reduction_needs_what_the_link_carries_and_no_more(table4: list[curves.Curve]) -> None:
    """13.5 Gbit per 100 steps of 0.1 s: utilisation is the bandwidth over 1.35 Gbit/s, at most 1."""
    (eager,) = [each for each in table4 if (each.model, each.method) == ("1B", "eager DiLoCo")]
    assert eager.utilization == pytest.approx(np.minimum(1, np.geomspace(0.1, 1000, 50) / 1.35))


def test_the_page_shows_the_table_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert utilization.main([str(TABLE4)]) == 0
    printed = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    page = (ROOT / "docs/utilization.md").read_text()
    shown = [re.sub(r" *\*", "", line) for line in re.findall(r"^\| (.*) \|$", page, re.M)]  # * marks what differs
    rows = [[cell.strip() for cell in line.split("|")] for line in shown if re.search(r"\d / ", line)]
    assert len(rows) == 6
    for method, *cells in rows:
        assert [[method, *cell.split(" / ")] for cell in cells] == [row for row in printed if row[0] == method]


def test_the_csv_file_has_every_point(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    """8 Gbit at 1, 10, 100 Gbit/s take 8, 0.8 and 0.08 s beside a step of 1 s: 1/9, 1/1.8 and 1/1.08."""
    assert utilization.main([small, "--csv", "points.csv"]) == 0
    out = capsys.readouterr().out
    assert "tiny: Gbit/s needed" in out and re.search(r"each step +10\.0 +>100", out)
    with open("points.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["model", "method", "utilization", "gbps"]
    assert [row[:2] for row in rows] == [["tiny", "each step"]] * 3
    assert [float(row[2]) for row in rows] == pytest.approx([1 / 9, 1 / 1.8, 1 / 1.08])
    assert [float(row[3]) for row in rows] == pytest.approx([1, 10, 100])


CODEC = """
from dataclasses import dataclass
from halos import hookimpl

@dataclass(frozen=True)
class Nibbles:
    def roundtrip(self, payload):
        return payload

    def wire_bytes(self, payload):
        return payload.size // 2

@hookimpl
def register_codecs(register):
    register("nibbles", Nibbles)
"""


def test_a_codec_counts_relative_to_bf16(small: str) -> None:
    Path("nibbles.py").write_text(CODEC)
    text = """
models: [{label: m, parameters: 12.0e9, layers: 10, step_time_seconds: 1.0}]
bits_per_parameter: 13.5
methods:
  - {label: none, every: 10}
  - {label: fp32, every: 10, codec: fp32}
  - {label: nibbles, every: 10, codec: {name: nibbles}}
  - {label: 13.5, every: 10, bits: 13.5}
  - {label: 27, every: 10, bits: 27}
  - {label: 3.375, every: 10, bits: 3.375}
"""
    Path("codecs.yaml").write_text(text)
    options = utilization.load_options("codecs.yaml", plugins=["nibbles.py"])
    shares = {each.label: curves.curve(options.models[0], each, options).utilization for each in options.methods}
    for codec, bits in (("none", "13.5"), ("fp32", "27"), ("nibbles", "3.375")):
        assert shares[codec] == pytest.approx(shares[bits]), codec
    assert shares["fp32"][0] < shares["none"][0] < shares["nibbles"][0]


def test_files_that_cannot_be_read_or_written_are_mistakes(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert utilization.main([]) == 2
    assert capsys.readouterr().err.startswith(
        "error: no configuration given; try: python -m halos.utilization configs/"
    )
    assert utilization.main(["gone.yaml"]) == 2
    assert capsys.readouterr().err == "error: gone.yaml does not exist\n"
    assert utilization.main([small, "--csv", "no/such.csv"]) == 2
    assert capsys.readouterr().err == "error: no/such.csv cannot be written: No such file or directory\n"


def test_without_matplotlib_a_plot_is_a_mistake_and_nothing_else_happens(
    small: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert utilization.main([small, "--plot", "a.png", "--csv", "a.csv"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: --plot: matplotlib is not installed; run: pip install halos-simulator[plot]\n")
    assert not Path("a.csv").exists()


def test_a_plot_is_drawn_with_labelled_axes(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert utilization.main([small, "--plot", "a.svg"]) == 0
    drawn = Path("a.svg").read_text()
    for text in ("tiny", "each step", "bandwidth (Gbit/s)", "compute utilisation (%)"):
        assert f"<!-- {text} -->" in drawn
    assert utilization.main([small, "--plot", "a.doc"]) == 2
    assert re.match(r"error: a\.doc cannot be written: Format 'doc' is not supported", capsys.readouterr().err)
