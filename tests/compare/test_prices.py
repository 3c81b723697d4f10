"""What traffic costs, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from halos.compare.prices import Prices, prices
from halos.errors import UserError
from halos.reading.run import RunRecords, read
from tests.compare.made_runs import write_run

GB = 1_000_000_000


def run(folder: Path, workers: tuple[int, ...] = (1, 1)) -> RunRecords:
    names = ("us", "eu", "asia")
    regions = [{"name": name, "workers": [1.0] * count} for name, count in zip(names, workers)]
    return read(write_run(folder / "run", [], config={"cluster": {"regions": regions}}))


def test_a_number_is_the_price_of_what_leaves_its_region(tmp_path: Path) -> None:
    sent = {"0->1": 3 * GB, "1->0": GB // 2, "0->0": 50 * GB}
    assert prices("0.02").dollars(run(tmp_path), sent) == pytest.approx(3.5 * 0.02)


def test_pairs_have_prices_of_their_own_in_one_direction(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("default: 0.02\nwithin: 0.001\nus -> eu: 0.05\neu->eu: 0.003\n")
    found, listed = run(tmp_path), prices(str(tmp_path / "prices.yaml"))
    sent = {"0->1": 2 * GB, "1->0": 2 * GB, "0->0": 2 * GB, "1->1": 2 * GB}
    assert listed.dollars(found, sent) == pytest.approx(2 * (0.05 + 0.02 + 0.001 + 0.003))
    assert list(listed.unused([found])) == []


def test_numbers_are_read_as_those_of_configurations(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("default: 2e-2\nus -> eu: 5e-2\n")
    assert prices(str(tmp_path / "prices.yaml")) == Prices(0.02, 0.0, {("us", "eu"): 0.05})


def test_a_collective_is_a_ring_some_of_whose_links_leave_their_region(tmp_path: Path) -> None:
    """Eight workers in two regions: 2 of 8 links leave, at the mean of 0.05 and 0.02; the rest is free."""
    sent, listed = {"all_reduce": 16 * GB}, Prices(0.02, 0.0, {("us", "eu"): 0.05})
    assert listed.dollars(run(tmp_path, workers=(5, 3)), sent) == pytest.approx(16 * 2 / 8 * 0.035)
    assert Prices(0.02, 0.001).dollars(run(tmp_path / "one", workers=(4, 0)), sent) == pytest.approx(16 * 0.001)


def test_a_pair_that_no_run_has_is_said(tmp_path: Path) -> None:
    found = run(tmp_path)
    (said,) = Prices(0.02, 0.0, {("us", "euu"): 0.05, ("us", "eu"): 0.05}).unused([found])
    assert said == "--prices: no run has the regions of 'us -> euu' (did you mean 'eu'?)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: x", "default: 'x' is not a number of dollars per GB, 0 or more"),
        ("us -> eu: -1", "us -> eu: -1 is not a number of dollars per GB, 0 or more"),
        ("within: .nan", "within: nan is not a number of dollars per GB, 0 or more"),
        ("defualt: 1", "'defualt' is none of default, within or FROM -> TO (did you mean 'default'?)"),
        ("- 1", "is no mapping; write, for example, default: 0.02 and us -> eu: 0.05"),
        ("a: [", "is no YAML: line 2, column 1: did not find expected node content"),
        ("us -> eu: 1\nus->eu: 2", "'us->eu' is given twice"),
    ],
)
def test_a_list_that_cannot_be_read_is_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        prices(str(tmp_path / "prices.yaml"))
    assert str(caught.value).startswith("--prices: ") and str(caught.value).endswith(said)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "nowhere.yaml", "", "."])
def test_neither_a_price_nor_a_file(text: str) -> None:
    with pytest.raises(UserError, match=r"^--prices: "):
        prices(text)
