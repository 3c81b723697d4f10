"""What a policy sees, in runs small enough to work out by hand."""

from __future__ import annotations

import pytest

from halos import Diverged, all_of
from halos.sim.simulation import Simulation
from halos.testing import record, tiny
from tests.small_runs import FOUR_MB, MB_PER_S, Policy, timing


def test_two_workers_8_steps_of_1_s_and_4_mb_over_1_mb_per_s_commit_at_12_s() -> None:
    run = record(tiny(executor={"name": "timing"}, model=FOUR_MB, network=MB_PER_S, steps={"base": 8}))
    # 2 (M−1)/M · 4 MB = 4 MB for two workers
    assert [commit.time for commit in run.commits] == pytest.approx([12.0])


def test_the_commit_that_crosses_the_budget_counts_whole_and_ends_the_run() -> None:
    async def body(sim: Simulation) -> None:
        async def loop(index: int) -> None:
            while True:
                update = await sim.train(sim.workers[index], sim.params)
                sim.commit(sim.params, [update])

        await all_of([sim.spawn(loop(0)), sim.spawn(loop(1))])

    run = timing(body, cluster={"regions": [{"workers": [1, 1]}]}, budget={"local_steps": 7})
    # Both arrive at 2, 4, …: 2, 4 | 6, 8. The last one ends it, and nothing after it happens.
    assert [commit.local_steps for commit in run.commits] == [2, 4, 6, 8]
    assert run.simulation.now == 4.0
    assert run.simulation.done


def test_several_named_evaluation_sets_are_each_evaluated() -> None:
    other = {"name": "synthetic", "samples": 16, "sequence_length": 8, "validation_samples": 16, "hold_out": False}
    run = record(tiny(evaluate={"sets": {"other": other}}))
    assert [each.set for each in run.evaluations] == ["validation", "other", "validation", "other"]


@pytest.mark.parametrize("workers", [1, 16])
def test_one_worker_or_many_reach_the_optimum_of_a_quadratic(workers: int) -> None:
    run = record(tiny(cluster={"regions": [{"workers": [1] * workers}]}, budget={"local_steps": workers * 400}))
    assert run.evaluations[-1].loss < 1e-10


def test_contributions_and_drops_are_lists() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 1)
        with pytest.raises(TypeError, match="contributions are a list"):
            sim.commit(sim.params, update)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="updates are a list"):
            sim.drop(update)  # type: ignore[arg-type]

    timing(body)


def test_an_evaluation_that_is_not_finite_stops_the_run() -> None:
    async def body(sim: Simulation) -> None:
        update = await sim.train(sim.workers[0], sim.params, 2)
        sim.commit(sim.params.map(lambda flat: flat / 0.0), [update])
        await sim.sleep(1.0)

    with pytest.raises(Diverged, match=r"became .*nan.* at 2 simulated seconds, after 2 committed local steps"):
        record(tiny(evaluate={"every_local_steps": 1}), policy=Policy(body))


def test_a_model_as_good_as_wanted_needs_no_training() -> None:
    run = record(tiny(budget={"local_steps": 40, "target_loss": 2.0}, evaluate={"every_local_steps": 1}))
    assert (len(run.evaluations), run.commits, run.simulation.now) == (1, [], 0.0)


def test_the_inner_learning_rate_is_the_schedules() -> None:
    """A warm-up over four steps to 0.2: the first local step of a job at learning-rate step 2 is the third."""
    rates: list[float] = []

    async def body(sim: Simulation) -> None:
        rates.extend(sim.learning_rate(step) for step in (0, 2, 3))

    train = {"optimizer": {"lr": 0.2}, "schedule": {"name": "warmup_cosine", "warmup": 4, "total": 100}}
    record(tiny(train=train), policy=Policy(body))
    assert rates == pytest.approx([0.05, 0.15, 0.2])
