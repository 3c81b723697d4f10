"""`python -m benchmarks.gpu`, tried out on the CPU: what it measures, and what it says where it cannot."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.contestant import Spec
from benchmarks.gpu.parts import PARTS, TESTS, TINY, Bar, Part, tiny
from benchmarks.gpu.race import Unmeasured, race, ratios, spread
from halos.models.gpt_neox import GPTNeoX

ROOT = Path(__file__).parents[1]
LATE = "bare loop was not done in time"
BARE = Spec(TINY, workers=2, steps=1, device="cpu")


@pytest.mark.slow
def test_all_of_it_runs_on_the_cpu(tmp_path: Path) -> None:
    """In processes of their own, as on a GPU; no figure of the CPU is taken for one of a GPU."""
    before = gpu.RESULTS.read_bytes() if gpu.RESULTS.exists() else None
    assert gpu.main(["--tiny", "--json", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["card"] is None and found["torch"] == torch.__version__
    assert found["tests"]["failed"] == 0 and found["tests"]["passed"] > 3
    assert found["parts"].keys() == PARTS.keys()
    for name, part in found["parts"].items():
        assert part["why"] is None and part["device"] == "cpu"
        assert set(part["peak_bytes"].values()) == {None}
        assert all(0 < rate["min"] <= rate["median"] <= rate["max"] for rate in part["tokens_per_second"].values())
        asked = [bar.least for bar in PARTS[name].bars]
        assert [(ratio["bar"], ratio["holds"]) for ratio in part["ratios"]] == [(least, None) for least in asked]
        assert all(0 < ratio["min"] <= ratio["median"] <= ratio["max"] for ratio in part["ratios"])
    assert (gpu.RESULTS.read_bytes() if gpu.RESULTS.exists() else None) == before


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err == "error: there is no GPU here that PyTorch can use; --tiny tries everything out on the CPU\n"


def test_ratios_are_of_turns_side_by_side_and_judged_by_their_median() -> None:
    rates = {"stacked": [10.0, 12.0, 30.0], "inline": [10.0, 10.0, 10.0]}
    assert ratios(rates, "stacked", "inline") == [1.0, 1.2, 3.0]
    assert spread([1.0, 1.2, 3.0]) == {"median": 1.2, "min": 1.0, "max": 3.0}
    verdicts = [
        gpu.judged(Bar("stacked", "inline", least), {"rates": rates}, device)["holds"]
        for least, device in ((1.2, "cuda"), (1.21, "cuda"), (1.2, "cpu"))
    ]
    assert verdicts == [True, False, None]


def test_what_is_not_done_in_time_is_null_and_not_zero() -> None:
    part = Part("", 1.0, {"bare loop": BARE, "other": BARE}, (Bar("other", "bare loop", 0.95),))
    found = gpu.measured(part, time.monotonic())
    nothing = {"median": None, "min": None, "max": None}
    assert found["why"] == LATE
    assert found["ratios"] == [{"what": "other over bare loop", **nothing, "bar": 0.95, "holds": None}]
    assert found["tokens_per_second"] == {"bare loop": nothing, "other": nothing}
    assert found["peak_bytes"] == {"bare loop": None, "other": None}
    assert gpu.tests(time.monotonic(), ["--collect-only"])["passed"] is None


def test_who_cannot_take_part_says_why() -> None:
    with pytest.raises(Unmeasured, match=r"^one: executor\.name: 'heaped' is not installed; installed: inline"):
        race({"one": replace(BARE, executor="heaped")}, time.monotonic() + 300)


def test_sizes_are_what_they_are_called() -> None:
    def parameters(name: str) -> int:
        size: dict[str, Any] = PARTS[name].contestants["inline"].size
        model = GPTNeoX(**{key: size[key] for key in ("hidden_size", "layers", "heads")})
        with torch.device("meta"):
            return sum(each.numel() for each in model.build(size["vocabulary"], 0).parameters())

    assert parameters("stacked 1M") == pytest.approx(1e6, rel=0.1)
    assert parameters("stacked 10M") == pytest.approx(1e7, rel=0.1)
    assert parameters("inline 70M") == parameters("stacked 70M") == 70_426_624  # arXiv 2304.01373, Table 1
    for part in PARTS.values():  # all take as many tokens a turn
        assert len({spec.tokens for spec in part.contestants.values()}) == 1
        assert len({spec.tokens for spec in tiny(part).contestants.values()}) == 1
    assert sum(part.seconds for part in PARTS.values()) + TESTS <= 300


def test_the_page_has_the_bars_that_are_judged_by() -> None:
    page = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    section = page.split("## On a GPU", 1)[1].split("\n## ", 1)[0]
    listed = re.findall(r"^\| (.+?) \| (.+?) \| ([\d.]+) \| (.+?) \|$", section, re.M)
    assert [row[:3] for row in listed] == [
        (name, f"{bar.over} over {bar.under}", str(bar.least)) for name, part in PARTS.items() for bar in part.bars
    ]
    if not gpu.RESULTS.exists():
        assert {row[3] for row in listed} == {"not measured"}
