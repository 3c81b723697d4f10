"""The run's books, on runs small enough to reckon by hand."""

import math
from math import inf

import pytest

from halos.observers.tally import Tally
from halos.values.params import Layout, Params
from halos.values.records import Commit, CutShort, EndToEnd, Evaluation, Transfer, Update
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Outage
from tests.made import share

PARAMS = Params(Layout({"a": (2, 2)}), None)


def cluster(workers=2):
    each = tuple(Worker(i, 0, 1.0) for i in range(workers))
    return Cluster((Region(0, "here", each),), each, 1.0, 0.0)


def job(worker, start, end, steps=1, losses=(), pull=0.0, push=0.0, server=None):
    compute = (start + pull, end - push)
    return Update(
        0, worker, 0, PARAMS, PARAMS, steps, start, end, 0, (0, steps), 0, losses, (1,) * len(losses), compute, server
    )  # fmt: skip


def collective(start, end, size=8):
    return Transfer(start, end, None, None, size, "all_reduce")


def commit(updates, time=0.0, staleness=0, drift=0.0, server="global", kind="update", ways=()):
    shares = (share(*updates, staleness=staleness, drift=drift, ways=ways),)
    return Commit(time, 1, server, kind, sum(update.steps for update in updates), shares, PARAMS)


def shares(books, worker):
    return tuple(round(books["workers"][worker][key], 12) for key in ("compute", "transfer", "idle"))


def test_two_workers_of_a_synchronous_round_share_out_its_time():
    tally = Tally(cluster())
    tally.on_update(job(1, 0, 4, steps=4))
    tally.on_update(job(0, 0, 8, steps=8))
    tally.on_transfer(collective(8, 12))
    books = tally.finish(12.0)
    assert shares(books, 0) == (round(8 / 12, 12), round(4 / 12, 12), 0)
    assert shares(books, 1) == (round(4 / 12, 12), round(4 / 12, 12), round(4 / 12, 12))
    assert [each["local_steps"] for each in books["workers"]] == [8, 4]
    assert books["updates"] == 2


def test_a_collective_hidden_by_compute_is_no_transfer():
    tally = Tally(cluster(1))
    tally.on_update(job(0, 0, 8))
    tally.on_transfer(collective(2, 6))  # wholly hidden
    tally.on_update(job(0, 8, 12))
    tally.on_transfer(collective(10, 14))  # hidden for 2 s of 4
    assert shares(tally.finish(16.0), 0) == (12 / 16, 2 / 16, 2 / 16)


def test_a_job_heard_of_after_the_collective_it_hid_counts_as_well():
    tally = Tally(cluster(1))
    tally.on_transfer(collective(2, 6))
    tally.on_update(job(0, 0, 8))
    assert shares(tally.finish(8.0), 0) == (1, 0, 0)


def test_a_round_trip_is_pull_compute_and_push():
    tally = Tally(cluster(1))
    for start in (0, 10):
        tally.on_transfer(Transfer(start, start + 2, 0, 0, 100, "pull", 0, 0))
        tally.on_transfer(Transfer(start + 9, start + 10, 0, 0, 50, "push", 0, 0))
        tally.on_update(job(0, start, start + 10, pull=2, push=1, server=0))
    books = tally.finish(25.0)
    assert shares(books, 0) == (14 / 25, 6 / 25, 5 / 25)
    assert books["bytes"] == {"0->0": 300}


def test_a_collective_beside_a_round_trip_is_counted_once():
    tally = Tally(cluster(1))
    tally.on_transfer(Transfer(0, 2, 0, 0, 100, "pull", 0, 0))
    tally.on_transfer(Transfer(9, 10, 0, 0, 50, "push", 0, 0))
    tally.on_update(job(0, 0, 10, pull=2, push=1, server=0))
    tally.on_transfer(collective(9, 12))  # 1 s beside the push, 2 s of its own
    assert shares(tally.finish(20.0), 0) == (7 / 20, 5 / 20, 8 / 20)


def test_jobs_that_the_end_cut_off_count_up_to_it():
    tally = Tally(cluster(3))
    # began, computes from, until: one still pulling, one computing, one pushing
    books = tally.finish(
        10.0, [CutShort(0, 8.0, 11.0, 20.0, inf), CutShort(1, 4.0, 5.0, 15.0, inf), CutShort(2, 0.0, 1.0, 7.0, inf)]
    )
    assert shares(books, 0) == (0, 0.2, 0.8)
    assert shares(books, 1) == (0.5, 0.1, 0.4)
    assert shares(books, 2) == (0.6, 0.4, 0)


def test_a_collective_that_the_end_cut_off_counts_up_to_it():
    tally = Tally(cluster(1))
    tally.on_update(job(0, 0, 6))
    assert shares(tally.finish(10.0, collective=8.0), 0) == (0.6, 0.2, 0.2)


def test_a_job_that_was_lost_counts_up_to_the_loss_and_its_worker_is_down_until_it_returns():
    tally = Tally(cluster(3))
    tally.on_transfer(collective(2, 10))  # of which worker 0 was down for 6 s, and worker 2 for 4 s
    # began, computes from, until, lost at: while computing, before it was down, and while pulling
    lost = [CutShort(0, 0.0, 1.0, 8.0, 4.0), CutShort(1, 0.0, 0.0, 8.0, 0.0), CutShort(2, 0.0, 3.0, 9.0, 2.0)]
    books = tally.finish(20.0, lost, outages=[Outage(0, 4.0, 16.0), Outage(1, 0.0, 20.0), Outage(2, 2.0, 6.0)])
    assert shares(books, 0) == (3 / 20, 1 / 20, 4 / 20)  # the collective was hidden
    assert shares(books, 1) == (0, 0, 0)
    assert shares(books, 2) == (0, 6 / 20, 10 / 20)  # 2 s of pull, and the collective's last 4 s
    assert [each["down"] for each in books["workers"]] == [12 / 20, 1, 4 / 20]


def test_goodput_is_the_compute_of_what_was_committed_over_all_workers_time():
    tally = Tally(cluster(2))
    first, second, third = job(0, 0, 4), job(1, 0, 5, pull=1, push=1), job(0, 4, 9)
    for each in (first, second, third):
        tally.on_update(each)
    tally.on_commit(commit([first]))
    tally.on_commit(commit([second]))
    tally.on_commit(commit([third], server="local-0"))  # not by the global server
    assert tally.goodput(10.0) == pytest.approx((4 + 3) / (2 * 10))
    assert Tally(cluster(2)).goodput(0.0) is None


def test_what_is_undecided_at_the_end_is_expected_to_come_to_what_was_decided():
    """Three workers for 10 s: 7 s of computing were committed and 1 s was dropped, 4 s have arrived since."""
    tally, committed = Tally(cluster(3)), [job(0, 0, 4), job(1, 0, 3)]
    assert tally.expected_goodput(10.0, 0.0, 0.0) == 0.0
    assert tally.expected_goodput(10.0, 0.0, 4.0) is None  # nothing was decided that would tell
    assert tally.expected_goodput(10.0, 1.0, 4.0) == 0.0  # all of it was dropped
    tally.on_commit(commit(committed))
    assert tally.expected_goodput(10.0, 1.0, 0.0) == tally.goodput(10.0) == pytest.approx(7 / 30)
    assert tally.expected_goodput(10.0, 1.0, 4.0) == pytest.approx((7 + 4 * 7 / 8) / 30)
    running = [
        CutShort(0, 9.0, 9.5, 12.0, inf),  # computes for half a second
        CutShort(1, 5.0, 6.0, 9.0, 11.0),  # has computed for 3 s, and pushes: that it will be lost nobody knows yet
        CutShort(2, 6.0, 7.0, 15.0, 8.0),  # was lost, though nobody has been told
    ]
    assert tally.expected_goodput(10.0, 1.0, 4.0, running) == pytest.approx((7 + 7.5 * 7 / 8) / 30)
    assert Tally(cluster(3)).expected_goodput(0.0, 0.0, 0.0) is None


def test_a_run_without_time_is_all_idle():
    assert shares(Tally(cluster(1)).finish(0.0), 0) == (0, 0, 1)


def test_many_rounds_come_to_the_same_as_one():
    tally = Tally(cluster(2))
    for round_start in range(0, 12_000, 12):
        tally.on_update(job(1, round_start, round_start + 4))
        tally.on_update(job(0, round_start, round_start + 8))
        tally.on_transfer(collective(round_start + 8, round_start + 12))
    books = tally.finish(12_000.0)
    assert shares(books, 0) == (round(8 / 12, 12), round(4 / 12, 12), 0)
    assert shares(books, 1) == (round(4 / 12, 12), round(4 / 12, 12), round(4 / 12, 12))


def test_without_collectives_a_busy_worker_needs_no_memory():
    tally = Tally(cluster(1))
    for start in range(1000):
        tally.on_update(job(0, start, start + 1, server=0))
    assert len(tally._open[0]) == 2


def test_bytes_are_summed_per_link_with_collectives_last():
    tally = Tally(cluster())
    tally.on_transfer(collective(0, 1, size=7))
    tally.on_transfer(Transfer(0, 1, 1, 0, 10, "send"))
    tally.on_transfer(Transfer(0, 1, 0, 1, 20, "send"))
    tally.on_transfer(Transfer(1, 2, 0, 1, 5, "send"))
    assert list(tally.finish(2.0)["bytes"].items()) == [("0->1", 25), ("1->0", 10), ("all_reduce", 7)]


def test_staleness_and_drift_are_those_of_contributions_to_the_global_model():
    tally = Tally(cluster())
    first = [EndToEnd(3, 2.0, 0.5)]
    second = [EndToEnd(5, 2.0, 1.5), EndToEnd(7, 2.0, math.nan)]
    tally.on_commit(commit([job(0, 0, 1, losses=(3.0, 5.0))], staleness=1, drift=2.0, ways=first))
    both = [job(0, 0, 1, losses=(1.0,)), job(1, 0, 1, losses=(4.0, 2.0))]
    tally.on_commit(commit(both, staleness=4, drift=math.nan, ways=second))
    tally.on_commit(commit([job(0, 0, 1, losses=(9.0,))], staleness=9, drift=9.0, server="local-0"))
    tally.on_commit(commit([], staleness=9, drift=9.0, kind="merge"))
    books = tally.finish(1.0)
    assert books["staleness"] == {"hop": {"mean": 2.5, "max": 4}, "end_to_end": {"mean": 5.0, "max": 7}}
    assert books["drift"] == {"hop": {"mean": 2.0, "max": 2.0}, "end_to_end": {"mean": 1.0, "max": 1.5}}
    assert books["commits"] == 2
    assert books["local_steps"] == 2
    assert books["final_train_loss"] == 2.0


def test_the_final_validation_loss_is_the_last_of_the_global_model_on_the_validation_set():
    tally = Tally(cluster())
    for loss, name, of in ((4.0, "validation", "global"), (3.0, "validation", "mean"), (2.0, "german", "global")):
        tally.on_evaluate(Evaluation(0.0, 1, 8, 8, 80, loss, name, of))
    books = tally.finish(1.0)
    assert books["final_validation_loss"] == 4.0
    assert books["final_losses"] == {"validation": 4.0, "german": 2.0}
    assert books["final_metrics"] == {"validation": {}, "german": {}}
    assert books["final_losses_of"] == {"mean": {"validation": 3.0}}


def test_a_run_with_nothing_committed_has_no_averages():
    books = Tally(cluster()).finish(1.0)
    nothing = {"mean": None, "max": None}
    assert books["staleness"] == books["drift"] == {"hop": nothing, "end_to_end": nothing}
    assert (books["final_train_loss"], books["final_validation_loss"]) == (None, None)


@pytest.mark.parametrize("seed", range(5))
def test_shares_agree_with_a_sum_over_small_ticks(seed):
    """Random jobs and serial collectives, on whole seconds, against counting second by second."""
    import random

    random = random.Random(seed)
    tally, end = Tally(cluster(3)), 400
    records, busy, carried = [], {0: set(), 1: set(), 2: set()}, set()
    for worker in busy:
        now = 0
        while (now := now + random.choice([0, 0, 1, 3])) < end - 20:
            stop = now + random.randint(1, 12)
            records.append((stop, "update", job(worker, now, stop)))
            busy[worker] |= set(range(now, stop))
            now = stop
    now = 0
    while (now := now + random.choice([0, 2, 9])) < end - 20:
        stop = now + random.randint(1, 8)
        records.append((stop, "transfer", collective(now, stop)))
        carried |= set(range(now, stop))
        now = stop
    for _, kind, record in sorted(records, key=lambda each: each[0]):
        (tally.on_update if kind == "update" else tally.on_transfer)(record)
    books = tally.finish(float(end))
    for worker, seconds in busy.items():
        compute, transfer = len(seconds) / end, len(carried - seconds) / end
        assert shares(books, worker) == pytest.approx((compute, transfer, 1 - compute - transfer), abs=1e-9)
