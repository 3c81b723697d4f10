"""Tables as they are read, every cell worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from halos.compare import tables
from halos.compare.amounts import amounts
from halos.compare.comparison import Comparison
from halos.compare.groups import grouped
from halos.compare.prices import Prices
from halos.compare.tables import Table
from halos.compare.targets import Target
from halos.reading.run import read
from tests.compare.made_comparison import QUICK, SLOW, make
from tests.compare.made_runs import write_run


def cells(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


def test_losses_at_equal_tokens(tmp_path: Path) -> None:
    """The seeds are two nats apart: a deviation of √2."""
    found = make(tmp_path)
    (at,) = amounts(found, ["steps=25%,50%,100%"])
    table = tables.losses(found, at)
    assert table.heads == ("", "100 steps", "200 steps", "400 steps")
    assert cells(table) == {
        "slow": ("4.500 ± 1.414", "4.000 ± 1.414", "3.000 ± 1.414"),
        "quick": ("4.750 ± 1.414", "4.500 ± 1.414", "3.700 ± 1.414"),
    }


def test_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    """0.5 and 0.7 for each seed: a spread of nothing. At 10 s `quick` has ended, 0.7 below; at 2 GB it has none yet."""
    found = make(tmp_path)
    table = tables.differences(found, amounts(found, []))
    assert table.title == "Validation loss minus slow's"
    assert table.heads[1::2] == ("at 2,000 tokens", "at 4,000 tokens", "at 10.0 s", "at 2.00 GB")
    assert cells(table) == {
        "quick": (
            *("+0.500 ± 0.000", "+0.500 to +0.500", "+0.700 ± 0.000", "+0.700 to +0.700"),
            *("-0.700 ± 0.000", "-0.700 to -0.700", "–", "–"),
        )
    }
    assert table.notes[-1] == "–: where nothing had been committed to a model yet, it is the initial one"


def test_runs_that_are_the_same_to_the_last_bit_are_said_to_be(tmp_path: Path) -> None:
    found = make(tmp_path, [("twin", seed, SLOW[seed], {}) for seed in (1, 2)])
    table = tables.differences(found, amounts(found, ["steps=400"]))
    assert cells(table)["twin"] == ("the same", "–")


def test_between_the_initial_model_and_the_first_other_one_nothing_is_told_apart(tmp_path: Path) -> None:
    """After 100 of the 200 steps to the first evaluation; after 200 it is 0.5, as above."""
    found = make(tmp_path)
    table = tables.differences(found, amounts(found, ["steps=100,200"]))
    assert cells(table)["quick"] == ("–", "–", "+0.500 ± 0.000", "+0.500 to +0.500")


def test_of_many_intervals_some_hold_no_zero_by_chance(tmp_path: Path) -> None:
    """Nineteen groups 0.5 above, with a spread of √2/10: 12.7062 · 0.1414 / √2 = 1.27 around it."""
    points = [(0.0, 0, 9.0), (1.0, 200, 3.4)], [(0.0, 0, 9.0), (1.0, 200, 5.6)]
    more = [(f"m{n}", seed, points[seed - 1], {}) for n in range(19) for seed in (1, 2)]
    found = make(tmp_path, [*more, *(("last", seed, QUICK[seed], {}) for seed in (1, 2))])
    table = tables.differences(found, amounts(found, ["steps=200"]))
    assert cells(table)["m0"] == ("+0.500 ± 0.141", "-0.771 to +1.771")
    assert table.notes[1] == "0 of 19 intervals do not hold 0; of so many, 1 would by chance alone"


def test_the_interval_is_students(tmp_path: Path) -> None:
    """Differences of 0.5 and 0.9 after 200 steps: 0.7 ± 0.2828, and 12.7062 · 0.2828 / √2 = 2.54124."""
    more = [("new", seed, [(0.0, 0, 9.0), (1.0, 200, loss)], {}) for seed, loss in ((1, 3.5), (2, 5.9))]
    found = make(tmp_path, more)
    table = tables.differences(found, amounts(found, ["steps=200"]))
    assert cells(table)["new"] == ("+0.700 ± 0.283", "-1.841 to +3.241")


def test_one_pair_has_no_interval_and_missing_pairs_are_counted(tmp_path: Path) -> None:
    found = make(tmp_path, [("new", 1, QUICK[1], {}), ("new", 3, QUICK[1], {})])
    table = tables.differences(found, amounts(found, ["steps=400"]))
    assert cells(table)["new"] == ("+0.700 (1 of 2 pairs)", "–")


def test_a_group_that_has_ended_keeps_its_last_model_and_is_in_brackets(tmp_path: Path) -> None:
    found = make(tmp_path)
    (at,) = amounts(found, ["seconds=10,40"])
    table = tables.losses(found, at)
    assert table.heads == ("", "s until 4,000 tokens are trained", "10.0 s", "40.0 s")
    assert cells(table) == {
        "slow": ("40.0 ± 0.0", "4.000 ± 1.414", "3.000 ± 1.414"),
        "quick": ("10.0 ± 0.0", "3.300 ± 1.414", "(3.300 ± 1.414)"),
    }
    assert "in brackets: some run had ended before; its final model counts" in table.notes


def test_seeds_that_diverged_are_missing_from_a_mean_and_said_to_be(tmp_path: Path) -> None:
    wild = {"finished": "diverged: training loss became nan"}
    found = make(tmp_path, [("new", 1, QUICK[1], {}), ("new", 2, QUICK[2][:2], wild)])
    (at,) = amounts(found, ["steps=400"])
    assert cells(tables.losses(found, at))["new"] == ("2.700 (1 of 2 seeds)",)


def test_a_target_that_some_missed_says_of_whom_its_numbers_are(tmp_path: Path) -> None:
    """`slow` ends at 2 and 4, so the target is 3 and 5: reached after 10 s; `new` after 5 s, with one seed."""
    points: dict[int, Any] = {1: [(0.0, 0, 4.0), (5.0, 100, 3.0)], 2: [(0.0, 0, 6.0), (5.0, 100, 5.5)]}
    more = [("new", seed, points[seed], {"transfers": ((4.0, 10**9),)}) for seed in (1, 2)]
    table = tables.target(make(tmp_path, more), Target.parse("+1"))
    assert table.title == "Until slow's final loss + 1 of the same seed"
    assert table.heads == ("", "simulated s", "times as fast", "tokens", "GB sent")
    assert cells(table) == {
        "slow": ("10.0 ± 0.0", "–", "2,000 ± 0", "1.00 ± 0.00"),
        "quick": ("10.0 ± 0.0", "1.00 (1.00 to 1.00)", "5,000 ± 0", "8.00 ± 0.00"),
        "new": ("5.0 (1 of 2 seeds)", "2.00 (1 of 2 seeds)", "1,000", "1.00"),
    }
    assert "(2 of 3 seeds): of those that reached it alone; the others had not by the end of their runs" in table.notes


def test_whoever_does_not_get_there_has_no_number(tmp_path: Path) -> None:
    found = make(tmp_path, [("going", 1, QUICK[1], {"finished": None})])
    nothing = ("–", "–")  # of tokens and bytes; who is faster is known of none
    table = tables.target(found, Target.parse("+0.1"))
    assert cells(table)["quick"] == ("not reached", *nothing)
    assert cells(table)["going"] == ("not reached so far", *nothing)
    assert cells(table)["slow"][0] == "40.0 ± 0.0"
    assert "(2 of 3 seeds)" not in " ".join(table.notes)


def test_what_is_known_of_no_run_that_reached_a_target_has_no_column(tmp_path: Path) -> None:
    """Without transfers among the records, bytes until then are unknown; of a single group, who is faster."""
    options: dict[str, Any] = {"labels": {"method": "slow"}, "config": {"observers": {"records": "commits"}}}
    runs = [read(write_run(tmp_path / str(seed), points, seed=seed, **options)) for seed, points in SLOW.items()]
    table = tables.target(Comparison.of(grouped(runs)[0]), Target.parse("+1"))
    assert (table.heads, *table.rows) == (("", "simulated s", "tokens"), ("slow", "10.0 ± 0.0", "2,000 ± 0"))


def test_cost_work_and_staleness_are_means_over_seeds(tmp_path: Path) -> None:
    found = make(tmp_path, prices=Prices(0.5))
    table = tables.cost(found)
    heads = ("", "simulated s", "GB sent", "$", "computing", "transferring", "idle")
    assert table.heads == heads
    assert cells(table) == {
        "slow": ("40.0", "2.00", "1.00", "62.5%", "25.0%", "12.5%"),
        "quick": ("10.0", "8.00", "4.00", "62.5%", "25.0%", "12.5%"),
    }
    table = tables.work(found)
    heads = ("", "tokens", "steps trained", "never committed", "global commits", "goodput", "expected goodput")
    assert table.heads == heads
    assert cells(table)["quick"] == ("5,000", "500", "0", "2", "50.0%", "62.5%")
    assert cells(tables.staleness(found))["quick"] == ("1.00", "1.50", "0.500", "0.750")


def test_what_never_happened_has_no_column_whoever_is_still_going(tmp_path: Path) -> None:
    found = make(tmp_path, [("going", 1, QUICK[1], {"finished": None})])
    assert tables.cost(found).heads == ("", "simulated s", "GB sent", "computing", "transferring", "idle")
    assert cells(tables.cost(found))["going"] == ("10.0", "0.00", "–", "–", "–")
    said = "runs that are not finished count as far as they came"
    assert tables.cost(found).notes == ("shares are of the workers' time", said)
    assert said in tables.work(found).notes and said not in tables.work(make(tmp_path / "done")).notes


def test_a_pivot_is_a_topic(tmp_path: Path) -> None:
    """The seeds end at 2 and 4, and at 2.3 and 4.3."""
    found = make(tmp_path)
    (work, pivot) = tables.tables(found, [], [], ["work", "final_loss:method"])
    assert work.title == "Work per run, mean over seeds"
    assert (pivot.title, pivot.heads) == ("Final loss", ("", "slow", "quick"))
    assert pivot.rows == (("", "3.000 ± 1.414", "3.300 ± 1.414"),)
    assert pivot.notes == ("mean ± sample standard deviation over seeds",)


def test_the_front_says_by_whom(tmp_path: Path) -> None:
    sent = {"transfers": ((1.0, 2 * 10**9),)}
    worse = [("worse", seed, [(0.0, 0, 9.0), (50.0, 400, SLOW[seed][-1][2])], sent) for seed in (1, 2)]
    table = tables.front(make(tmp_path, worse))
    assert table.heads == ("", "final loss", "simulated s", "GB sent", "dominated")
    assert cells(table) == {
        "slow": ("3.000", "40.0", "2.00", "on the front"),
        "quick": ("3.300", "10.0", "8.00", "on the front"),
        "worse": ("3.000", "50.0", "2.00", "by slow"),
    }


def test_timing_runs_have_everything_but_losses(tmp_path: Path) -> None:
    found = make(tmp_path, [("timed", 1, [], {"executor": "timing", "transfers": ((1.0, 3 * 10**9),)})])
    (at,) = amounts(found, ["steps=400"])
    assert cells(tables.losses(found, at))["timed"] == ("–",)
    assert cells(tables.cost(found))["timed"] == ("8.0", "3.00", "62.5%", "25.0%", "12.5%")
    assert "left out, as not all of this is known: timed" in tables.front(found).notes


def test_tables_that_would_say_nothing_are_left_out(tmp_path: Path) -> None:
    sent = {"executor": "timing", "transfers": [(1.0, 10)]}
    runs = [read(write_run(tmp_path / name, [], labels={"m": name}, **sent)) for name in ("a", "b")]
    found = Comparison.of(grouped(runs)[0])
    titles = [table.title for table in tables.tables(found, amounts(found, []), [Target.parse("+0")])]
    assert titles == [
        "Cost per run, mean over seeds",
        "Work per run, mean over seeds",
        "Staleness and drift, mean over seeds",
        "Pareto front",
    ]
