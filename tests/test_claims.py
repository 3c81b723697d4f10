"""Papers against ours: verdicts by hand, a claim from its sweep to its row; and the page is that of the record."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Optional

import pytest
import yaml

from benchmarks.claims.__main__ import main
from benchmarks.claims.claim import KNOWN, Check, claims
from benchmarks.claims.page import judged
from benchmarks.claims.verdict import estimate, verdict

DOCS = Path(__file__).parents[1] / "docs"

# Verdicts

BY_TENTHS = {"of": {"1": 2.1, "2": 3.2, "3": 4.3}, "other": {"1": 2.0, "2": 3.0, "3": 4.0}}  # 0.1, 0.2, 0.3 above


def judge(numbers: dict[str, Any], *between: Optional[float], over: bool = False) -> str:
    low, high = between
    check = Check("final_loss", "a", (low, high), **({"over": "b"} if over else {"minus": "b"}))
    return verdict([check], [estimate(check, numbers)])


def test_a_claim_holds_if_the_whole_interval_is_within_its_bounds() -> None:
    """Mean 0.2, sd 0.1, t = 4.303: −0.048 to 0.448."""
    assert judge(BY_TENTHS, -0.05, 0.45) == "holds"
    assert judge(BY_TENTHS, -0.05, None) == "holds"
    assert judge(BY_TENTHS, 0.0, None) == "undecided"
    assert judge(BY_TENTHS, -0.05, 0.44) == "undecided"
    assert judge(BY_TENTHS, 0.3, 0.4) == "undecided", "the mean is outside, the interval is not"
    assert judge(BY_TENTHS, 0.45, None) == "does not hold"
    assert judge(BY_TENTHS, None, -0.05) == "does not hold"


def test_ratios_are_taken_seed_by_seed() -> None:
    doubled = {"of": {"1": 2.0, "2": 20.0}, "other": {"1": 1.0, "2": 10.0}}
    assert judge(doubled, 1.99, 2.01, over=True) == "holds"
    assert judge(doubled, 2.01, None, over=True) == "does not hold"


def test_of_one_seed_the_number_decides() -> None:
    assert judge({"of": {"1": 1.5}, "other": {"1": 1.0}}, 0.5, 0.5) == "holds"
    assert judge({"of": {"1": 1.5}, "other": {"1": 1.0}}, 0.6, None) == "does not hold"


def test_a_seed_that_is_not_known_is_not_left_out() -> None:
    assert judge({"of": {"1": None, "2": 1.0}, "other": {"1": 0.5, "2": 0.5}}, 0.0, None) == "undecided"


def test_half_a_pair_and_a_ratio_of_what_is_not_positive_are_not_left_out() -> None:
    assert judge({"of": {"1": 2.0, "2": 1.0}, "other": {"1": 0.5}}, 0.0, None) == "undecided"
    assert judge({"of": {"1": 2.0, "2": 0.0}, "other": {"1": 1.0, "2": 1.0}}, 0.0, None, over=True) == "undecided"


def test_all_checks_of_a_claim_must_hold() -> None:
    checks = [Check("final_loss", "a", (0.0, None)), Check("final_loss", "a", (None, 9.0))]
    found = [estimate(each, {"of": {"1": 5.0}}) for each in checks]
    assert verdict(checks, found) == "holds"
    assert verdict([*checks, Check("bytes", "a", (0.0, None))], [*found, None]) == "undecided"
    assert verdict([*checks, Check("x", "a", (6.0, None))], [None, found[0], found[0]]) == "does not hold"


# From a sweep to a row

TINY = {
    "cluster": {"regions": [{"workers": [1.0, 1.0]}], "step_time_ms": 1000.0},
    "network": {"bandwidth_gbps": 1.0},
    "model": {"name": "quadratic", "size": 1, "curvature": 1.0, "optimum": 1.0, "dtype": "float64"},
    "data": {"name": "synthetic", "samples": 256, "sequence_length": 4, "validation_samples": 8},
    "train": {
        "batch_size": 1,
        "clip": 0.0,
        "optimizer": {"name": "sgd", "lr": 0.5, "weight_decay": 0.0},
        "schedule": {"name": "constant"},
    },
    "steps": {"name": "fixed", "base": 1},
    "policy": {"name": "diloco", "outer": {"name": "sgd", "lr": 1.0}},
    "budget": {"local_steps": 6},
    "evaluate": {"every_local_steps": 2},
    "observers": {"progress": False, "tensorboard": False, "trace": False},
}
CLAIM = {
    "name": "half",
    "says": "Half as far is too short.",
    "where": "Eq. 1",
    "published": "81 thousandths",
    "known": "second-hand",
    "sweep": "rates.yaml",
    "ours": "a parabola",
    "baseline": "lr 1",
    "checks": [
        {"measure": "final_loss", "of": "lr 0.5", "minus": "lr 1", "between": [0.0811, 0.0812]},
        {"measure": "seconds@loss=+0.1", "of": "lr 0.5", "over": "lr 1", "between": [2.9, None]},
        {"measure": "loss@seconds=1.5", "of": "lr 1", "between": [None, 0.126]},
        {"measure": "steps.committed", "of": "lr 1", "between": [6, 6]},
    ],
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two workers, three rounds of a second; a step halves the distance to the optimum: 1/2, 1/8, 1/32, 1/128.

    With half the outer rate distances are 1, 3/4, 9/16, 27/64, so losses 1/2, 9/32, 81/512, 729/8192.
    """
    place = tmp_path_factory.mktemp("claims")
    paper = place / "papers/0000.00000"
    paper.mkdir(parents=True)
    (paper / "base.yaml").write_text(yaml.safe_dump(TINY))
    grid = {"config": "base.yaml", "axes": {"policy.outer.lr": [1, 0.5], "seed": [1, 2]}}
    (paper / "rates.yaml").write_text(yaml.safe_dump(grid))
    (paper / "claims.yaml").write_text(yaml.safe_dump({"paper": "A paper", "claims": [CLAIM]}))
    (place / "claims.md").write_text(
        "<!-- claims all -->\n<!-- end -->\nsaid\n<!-- claims 0000.00000 -->\nold\n<!-- end -->\nafter\n"
    )
    assert command(place) == 0
    return place


@pytest.fixture
def place(measured: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured, tmp_path / "place")


def command(place: Path, *more: str) -> int:
    folders = ["--papers", str(place / "papers"), "--docs", str(place), "--out", str(place / "runs")]
    return main([*folders, *more])


def test_a_claim_is_run_judged_recorded_and_written(place: Path) -> None:
    (found,) = json.loads((place / "results/claims.json").read_text()).values()
    final, target, early, _ = found["checks"]
    assert final["of"] == {"1": pytest.approx(729 / 8192), "2": pytest.approx(729 / 8192)}
    assert final["other"] == {"1": pytest.approx(1 / 128), "2": pytest.approx(1 / 128)}
    # Below 1/128 + 0.1 is 1/32 after 2 rounds, and 729/8192 after 3.
    assert target["other"] == {"1": pytest.approx(2.0), "2": pytest.approx(2.0)}
    assert target["of"] == {"1": pytest.approx(3.0), "2": pytest.approx(3.0)}
    assert early["of"]["1"] == pytest.approx(1 / 8)
    page = (place / "claims.md").read_text()
    assert "* Of 1 second-hand: 1 do not hold\n" in page, "three halves as long is not 2.9 times"
    assert "| Half as far is too short. *Eq. 1* | 81 thousandths (second-hand: no agreement" in page
    assert (
        "final_loss: lr 0.5 − lr 1: +0.081 (+0.081 to +0.081, 2 seeds)<br>seconds@loss=+0.1: lr 0.5 / lr 1: 1.5" in page
    )
    assert page.endswith("<!-- end -->\nafter\n") and "\nsaid\n" in page and "\nold\n" not in page


def test_numbers_of_other_settings_are_not_those_of_the_claim(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "papers/0000.00000/base.yaml").write_text(yaml.safe_dump({**TINY, "budget": {"local_steps": 8}}))
    assert command(place, "--report-only") == 0
    assert "* Of 1 second-hand: 1 not measured\n" in (place / "claims.md").read_text()
    bounds = yaml.safe_load((place / "papers/0000.00000/claims.yaml").read_text())
    bounds["claims"][0]["checks"][1]["between"] = [1.4, 1.6]
    (place / "papers/0000.00000/base.yaml").write_text(yaml.safe_dump(TINY))
    (place / "papers/0000.00000/claims.yaml").write_text(yaml.safe_dump(bounds))
    assert command(place, "--list") == 0
    assert re.search(r"^ +holds  0000.00000/half: Half as far is too short\.$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"checks": [{"measure": "bytes", "of": "lr 2", "between": [0, 1]}]}, "no group is called 'lr 2'"),
        ({"checks": [{"measure": "bites", "of": "lr 1", "between": [0, 1]}]}, "lr 1 has no bites"),
        ({"checks": [{"measure": "versions.torch", "of": "lr 1", "between": [0, 1]}]}, "lr 1 has no versions.torch"),
        ({"checks": [{"measure": "loss@steps=2,4", "of": "lr 1", "between": [0, 1]}]}, "'steps=2,4' is more than one"),
        ({"checks": [{"measure": "cents@loss=1", "of": "lr 1", "between": [0, 1]}]}, "'cents' is none of"),
        ({"checks": [{"measure": "bytes", "of": "lr 1", "minus": "lr 1", "between": [0, 1]}]}, "against itself"),
        ({"checks": [{"measure": "bytes", "of": "lr 1", "between": [1]}]}, "between: [1] is not two numbers"),
        ({"checks": [{"measure": "bytes", "of": "lr 1", "between": ["0", "1"]}]}, "is not two numbers"),
        ({"checks": [{"measure": "bytes", "of": "lr 1", "between": [1, 0]}]}, "between: [1, 0] can hold of nothing"),
        ({"checks": [{"measure": "bytes", "of": "lr 1", "between": [None, None]}]}, "holds whatever is measured"),
        ({"checks": []}, "checks: [] is no list of checks"),
        ({"published": 0.081}, "claims.half.published: 0.081 is no text"),
        ({"sweep": "rate.yaml"}, "rate.yaml does not exist"),
        ({"checks": [{"measures": "bytes", "of": "lr 1", "between": [0, 1]}]}, "checks.measures is unknown (did you"),
        ({"where": None, "wher": "x"}, "wher is unknown"),
        ({"known": "guessed"}, "known: 'guessed' is none of read, second-hand, derived"),
    ],
)
def test_a_mistake_in_a_claim_is_one_line(
    place: Path, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = {"paper": "A paper", "claims": [{**CLAIM, **changed}]}
    (place / "papers/0000.00000/claims.yaml").write_text(yaml.safe_dump(claim))
    before = (place / "results/claims.json").read_text()
    assert command(place) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert (place / "results/claims.json").read_text() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("paper: P\n", "has to have `paper`, a text, `claims`, a list"),
        ("paper: P\nclaims: [\n", "is not valid YAML"),
        ("paper: P\nclaims: [x]\n", "'x' is no section with a name"),
        (yaml.safe_dump({"paper": "P", "claims": [CLAIM, CLAIM]}), "claims.half is there twice"),
    ],
)
def test_a_file_that_is_none_of_claims_is_one_line(
    place: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "papers/0000.00000/claims.yaml").write_text(text)
    assert command(place, "--list") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_pairs_need_both(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = place / "papers/0000.00000/rates.yaml"
    section = yaml.safe_load(grid.read_text())
    grid.write_text(yaml.safe_dump({**section, "without": [{"policy.outer.lr": 1, "seed": 2}]}))
    assert command(place) == 2
    assert "seeds 1, 2 are no pairs with seeds 1" in capsys.readouterr().err.splitlines()[-1]


def test_a_group_that_diverged_leaves_a_claim_undecided(place: Path) -> None:
    """An inner rate of 9 takes the distance to −8 times itself: 8^800 is more than a float64 can say."""
    paper = place / "papers/0000.00000"
    config = {
        **TINY,
        "budget": {"local_steps": 1600},
        "train": {**TINY["train"], "optimizer": {"name": "sgd", "lr": 9.0}},
    }
    (paper / "base.yaml").write_text(yaml.safe_dump(config))
    checks = [{"measure": measure, "of": "lr 1", "between": [0.0, None]} for measure in ("final_loss", "bytes")]
    claim = {**CLAIM, "checks": checks}
    grid = {"config": "base.yaml", "axes": {"policy.outer.lr": [1, 0.01], "seed": [1, 2]}}
    (paper / "rates.yaml").write_text(yaml.safe_dump(grid))
    (paper / "claims.yaml").write_text(yaml.safe_dump({"paper": "A paper", "claims": [claim]}))
    assert command(place) == 0
    assert "* Of 1 second-hand: 1 undecided" in (place / "claims.md").read_text()
    assert (place / "claims.md").read_text().count("not known of every seed") == 2


@pytest.mark.parametrize("deep", ["extended", "labelled", "environment", "code"])
def test_what_lies_two_levels_down_is_among_the_settings(place: Path, deep: str) -> None:
    paper = place / "papers/0000.00000"
    (paper / "below.yaml").write_text("x: 1\n")
    (paper / "base.yaml").write_text(yaml.safe_dump({**TINY, "extends": ["below.yaml"]}))
    (paper / "own.py").write_text("A = 1\n")
    (paper / "env.yaml").write_text("regions: []\n")
    labels = {"a": {"config": "label.yaml"}, "b": {"config": "base.yaml"}}
    (paper / "label.yaml").write_text(
        yaml.safe_dump({"extends": "base.yaml", "plugins": ["own.py"], "cluster": {"env": "env.yaml"}})
    )
    (paper / "rates.yaml").write_text(yaml.safe_dump({"axes": {"rule": labels}}))
    (before,) = claims(place / "papers")
    assert before.settings() == claims(place / "papers")[0].settings()
    changed = {"extended": "below.yaml", "labelled": "label.yaml", "environment": "env.yaml", "code": "own.py"}[deep]
    (paper / changed).write_text((paper / changed).read_text() + ("y: 2\n" if deep != "code" else "B = 2\n"))
    assert claims(place / "papers")[0].settings() != before.settings()


def test_a_sweep_that_fails_or_is_interrupted_loses_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three papers' sweeps: the first ends, the second fails, the third is interrupted; a fourth is not begun."""
    first = place / "papers/0000.00000"
    for name in ("1111.11111", "2222.22222", "3333.33333"):
        shutil.copytree(first, place / "papers" / name)
        with (place / "claims.md").open("a") as page:
            page.write(f"<!-- claims {name} -->\n<!-- end -->\n")
    record = place / "results/claims.json"
    kept = json.loads(record.read_text())
    record.write_text(json.dumps({"elsewhere/claim": {"settings": "", "checks": []}}))
    asked: list[str] = []

    def sweep(arguments: list[str]) -> int:
        asked.append(Path(arguments[0]).parent.name)
        return [0, 1, 130][len(asked) - 1]

    monkeypatch.setattr("benchmarks.claims.__main__.sweep", sweep)
    assert command(place) == 130
    assert asked == ["0000.00000", "1111.11111", "2222.22222"]
    assert json.loads(record.read_text()) == {**kept, "elsewhere/claim": {"settings": "", "checks": []}}
    assert "1111.11111/rates.yaml" in capsys.readouterr().err
    assert "* Of 4 second-hand: 1 do not hold, 3 not measured" in (place / "claims.md").read_text()


def test_a_page_or_a_record_that_cannot_be_used_is_said_before_anything_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.claims.__main__.sweep", None)
    page = (place / "claims.md").read_text()
    (place / "claims.md").write_text(page.replace("<!-- claims 0000.00000 -->", ""))
    assert command(place) == 2
    (place / "claims.md").unlink()
    assert command(place) == 2
    (place / "claims.md").mkdir()
    assert command(place) == 2
    (place / "results/claims.json").write_text("{")
    assert command(place) == 2
    without, missing, folder, record = capsys.readouterr().err.splitlines()
    assert "has no place for a table: write there `<!-- claims 0000.00000 -->`" in without
    assert "claims.md cannot be read: No such file" in missing and "claims.md cannot be read" in folder
    assert "claims.json cannot be read" in record
    assert command(place, "--papers", str(place / "runs")) == 2
    assert "has no folder with a claims.yaml" in capsys.readouterr().err


def test_an_unknown_name_is_a_mistake(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(place, "0000.00000/hal") == 2
    assert "'0000.00000/hal' is no claim (did you mean '0000.00000/half'?)" in capsys.readouterr().err


# The claims as they are recorded


def test_the_page_is_that_of_the_record(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    shutil.copy(DOCS / "claims.md", tmp_path)
    shutil.copy(DOCS / "results/claims.json", tmp_path / "results")
    assert main(["--report-only", "--docs", str(tmp_path)]) == 0
    assert (tmp_path / "claims.md").read_text() == (DOCS / "claims.md").read_text()


def test_every_claim_has_been_measured_as_it_is_set_today() -> None:
    recorded = json.loads((DOCS / "results/claims.json").read_text())
    assert [claim.id for claim in claims() if judged(claim, recorded)[0] == "not measured"] == []
    assert set(recorded) == {claim.id for claim in claims()}


def test_a_number_of_one_seed_is_only_of_what_no_seed_changes() -> None:
    recorded = json.loads((DOCS / "results/claims.json").read_text())
    for claim in claims():
        for check in recorded[claim.id]["checks"] if claim.id in recorded else []:
            assert len(check["of"]) >= 5 or claim.known == "derived", claim.id


def test_every_paper_is_on_the_page_and_says_how_well_it_is_known() -> None:
    page = (DOCS / "claims.md").read_text()
    for claim in claims():
        assert f"<!-- claims {claim.folder.name} -->" in page
        assert re.search(r"\w", claim.where) and claim.known in KNOWN
