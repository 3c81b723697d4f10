"""What is said of groups at equal amounts, and whom they are held against: by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from halos.compare.comparison import baselines
from halos.compare.groups import Group
from halos.compare.prices import Prices
from halos.compare.targets import Target
from halos.errors import UserError
from tests.compare.made_comparison import GB, QUICK, SENT, make


def test_equal_is_what_all_have_reached(tmp_path: Path) -> None:
    found = make(tmp_path)
    reached = {of: found.reached(of) for of in ("tokens", "steps", "seconds", "bytes")}
    assert reached == {"tokens": 4000.0, "steps": 400.0, "seconds": 10.0, "bytes": 2.0 * GB}


def test_losses_are_by_seed_so_that_they_can_be_paired(tmp_path: Path) -> None:
    slow, quick = (found := make(tmp_path)).groups
    assert found.losses(slow, "steps", 400) == {1: 2.0, 2: 4.0}
    assert found.losses(quick, "steps", 400) == pytest.approx({1: 2.7, 2: 4.7})
    assert found.losses(quick, "seconds", 9.0) == {1: 3.5, 2: 5.5}
    assert found.losses(quick, "bytes", 4 * GB) == {1: 3.5, 2: 5.5}
    assert found.losses(slow, "steps", 401) == {}


def test_whoever_has_ended_keeps_the_final_model_and_whoever_runs_is_not_there_yet(tmp_path: Path) -> None:
    found = make(tmp_path, [("going", 1, QUICK[1], {"finished": None})])
    slow, quick, going = found.groups
    assert (found.losses(quick, "seconds", 40.0), found.ended(quick, "seconds", 40.0)) == ({1: 2.3, 2: 4.3}, True)
    assert not found.ended(slow, "seconds", 40.0)
    assert found.losses(going, "seconds", 40.0) == {}
    assert found.losses(going, "seconds", 10.0) == {1: 2.3}
    (said,) = [remark for remark in found.remarks if "going" in remark]
    assert said.endswith("going-1-4: still going, or killed; compared as far as it is (5,000 tokens)")


def test_a_moment_is_when_so_much_had_been_trained(tmp_path: Path) -> None:
    slow, quick = (found := make(tmp_path)).groups
    assert found.done(slow, "tokens", 4000.0) == {1: 40.0, 2: 40.0}
    assert found.done(quick, "tokens", 4000.0) == {1: 10.0, 2: 10.0}
    assert found.done(slow, "tokens", 4001.0) == {}


def test_targets_are_those_of_the_same_seed_and_who_missed_them_is_known(tmp_path: Path) -> None:
    """`slow` ends at 2 and at 4: a margin of 1 is a target of 3 and of 5, one of 0.3 of 2.3 and 4.3."""
    slow, quick = (found := make(tmp_path)).groups
    one = found.reaching(quick, Target.parse("+1"))
    assert one.of("seconds") == {1: 10.0, 2: 10.0}
    assert (one.of("tokens"), one.of("bytes"), one.missed) == ({1: 5e3, 2: 5e3}, {1: 8.0 * GB, 2: 8.0 * GB}, ())
    assert found.reaching(slow, Target.parse("+1")).of("seconds") == {1: 10.0, 2: 10.0}
    none = found.reaching(quick, Target.parse("+0.2"))
    assert (none.spent, none.missed, none.running) == ({}, (1, 2), ())
    absolute = found.reaching(quick, Target.parse("2.3"))
    assert (absolute.of("seconds"), absolute.missed) == ({1: 10.0}, (2,))


def test_a_run_that_diverged_missed_its_target_and_one_still_going_may_yet_reach_it(tmp_path: Path) -> None:
    wild = {"finished": "diverged: training loss became nan"}
    found = make(tmp_path, [("new", 1, QUICK[1], wild), ("new", 2, QUICK[2][:2], {"finished": None})])
    new = found.groups[2]
    reached = found.reaching(new, Target.parse("+1"))
    assert (reached.spent, reached.missed, reached.running) == ({}, (1, 2), (2,))
    assert found.losses(new, "steps", 200) == {2: 5.5}
    assert found.reached("steps") == 200.0


def test_a_target_of_a_seed_that_the_baseline_lacks_is_none(tmp_path: Path) -> None:
    found = make(tmp_path, [("more", 3, QUICK[1], {})])
    assert found.reaching(found.groups[2], Target.parse("+1")).count == 0
    assert found.reaching(found.groups[2], Target.parse("2.5")).count == 1


def test_other_corpora_are_left_out_of_losses_alone(tmp_path: Path) -> None:
    other = {"corpus": "ffff0000", "data": {"path": "/corpora/two"}}
    found = make(tmp_path, [("other", 1, [(0.0, 0, 1.0), (1.0, 4, 0.5)], other)])
    assert found.reached("steps") == 400.0
    assert found.losses(found.groups[2], "steps", 4) == {}
    assert found.measure(found.groups[2], "final_loss") == {}
    assert found.measure(found.groups[2], "simulated_seconds") == {1: 1.0}
    assert any("another corpus (hash ffff0000, not 0a1b2c3d)" in remark for remark in found.remarks)


def test_that_seeds_have_validation_sets_of_their_own_is_said_once(tmp_path: Path) -> None:
    (said,) = make(tmp_path).remarks
    assert said.startswith("every seed has a validation set of its own (data.split_seed follows the seed)")


# The Pareto front


def test_the_front_is_of_loss_time_bytes_and_money(tmp_path: Path) -> None:
    """`quick` is sooner, `slow` better and cheaper; `worse` takes 50 s and 2 GB for the loss of `quick`."""
    points = {seed: [(0.0, 0, 4.0), (50.0, 400, loss)] for seed, loss in ((1, 2.3), (2, 4.3))}
    sent = {"transfers": SENT["slow"]}
    more = [("worse", seed, points[seed], sent) for seed in (1, 2)]
    found = make(tmp_path, more, prices=Prices(0.5))
    kinds, means, seeds = found.costs
    assert kinds == ("final_loss", "simulated_seconds", "bytes", "dollars")
    assert seeds == [1, 2]
    assert means == {
        "slow": [3.0, 40.0, 2.0 * GB, 1.0],
        "quick": [pytest.approx(3.3), 10.0, 8.0 * GB, 4.0],
        "worse": [pytest.approx(3.3), 50.0, 2.0 * GB, 1.0],
    }
    assert found.dominated == {"slow": [], "quick": [], "worse": ["slow"]}


def test_the_front_is_over_the_finished_seeds_that_all_have(tmp_path: Path) -> None:
    found = make(tmp_path, [("one", 2, QUICK[2], {}), ("going", 1, QUICK[1], {"finished": None})])
    _, means, seeds = found.costs
    assert (seeds, list(means)) == ([2], ["slow", "quick", "one"])
    assert means["slow"][0] == 4.0


# Baselines


def groups(*values: dict[str, str]) -> list[Group]:
    return [Group(", ".join(each.values()), each, {}) for each in values]


GRID = groups(
    {"method": "DiLoCo", "steps": "fixed"},
    {"method": "async", "steps": "fixed"},
    {"method": "DiLoCo", "steps": "by_speed"},
    {"method": "async", "steps": "by_speed"},
    {"method": "async", "steps": "measured"},
)


def against(name: str | None) -> dict[str, str]:
    return {label: group.label for label, group in baselines(GRID, name).items()}


def test_the_first_group_is_the_baseline_unless_another_is_named() -> None:
    assert set(against(None).values()) == {"DiLoCo, fixed"}
    assert set(against("async, by_speed").values()) == {"async, by_speed"}
    assert set(against("ASYNC, by_speed").values()) == {"async, by_speed"}
    assert set(against("measured").values()) == {"async, measured"}


def test_a_value_of_several_groups_is_the_baseline_of_those_that_are_like_it_in_all_else() -> None:
    assert against("DiLoCo") == {
        "DiLoCo, fixed": "DiLoCo, fixed",
        "async, fixed": "DiLoCo, fixed",
        "DiLoCo, by_speed": "DiLoCo, by_speed",
        "async, by_speed": "DiLoCo, by_speed",
    }


def test_an_unknown_baseline_is_a_mistake() -> None:
    with pytest.raises(UserError) as caught:
        baselines(GRID, "diloko")
    assert str(caught.value).startswith(
        "--baseline: no group is called 'diloko' (did you mean 'DiLoCo'?); there are 'Di"
    )


def test_there_is_one_baseline_for_all_or_each_has_its_own(tmp_path: Path) -> None:
    assert (shared := make(tmp_path).shared_baseline) is not None and shared.label == "slow"
    more = [("slow", 3, QUICK[1], {"labels": {"method": "slow", "steps": "x"}})]
    assert make(tmp_path / "two", more, baseline="quick").shared_baseline is not None
    assert not math.isnan(make(tmp_path / "three", more).reached("steps"))
