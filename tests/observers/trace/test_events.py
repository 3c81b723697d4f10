"""What the lines of a trace say."""

import json
import math
from collections import defaultdict

from halos.observers.trace.arrows import Arrows, Done
from halos.observers.trace.events import names, of_commits, of_link, of_losses, of_worker
from halos.observers.trace.rows import Compute, Row
from halos.values.records import Transfer
from halos.world.cluster import Cluster, Region, Worker

NO_ARROWS = Arrows({}, {}, {}, {}, defaultdict(list), defaultdict(list))
PULL = Transfer(0.0, 1.0, 0, 1, 1_234_567, "pull", 3)


def parsed(chunks):
    """(moment, events) of each chunk; every event's line begins with a comma."""
    return [(moment, json.loads("[" + lines.removeprefix(",\n") + "]")) for moment, lines in chunks]


def test_a_worker_s_slices_are_its_jobs_and_transfers():
    job = Compute(1.0, 3.0, 3, 1, 7, 20, 5, 1)
    row = Row(2, "worker 3", [(0, 1_000_000, PULL), (1_000_000, 3_000_000, job)])
    (_, (pull,)), (_, (train,)) = parsed(of_worker(row, 9, NO_ARROWS))
    where = {"ph": "X", "pid": 2, "tid": 9}
    assert pull == {**where, "ts": 0, "dur": 1_000_000, "name": "pull", "cat": "transfer", "args": {"MB": 1.235}}
    args = {"from_version": 7, "lr_step": 20}
    assert train == {
        **where, "ts": 1_000_000, "dur": 2_000_000, "name": "train 1 step", "cat": "compute", "args": args
    }  # fmt: skip


def test_a_link_says_whose_transfer_it_carries():
    ((_, (event,)),) = parsed(of_link(Row(4, "us → eu", [(0, 1_000_000, PULL)]), 12, NO_ARROWS))
    assert event["name"] == "pull to worker 3"


def test_an_arrow_follows_the_slice_that_it_is_bound_to():
    drawn = NO_ARROWS._replace(pushes={id(PULL): '"id":4,"cat":"way","name":"update"'})
    ((moment, (slice_, arrow)),) = parsed(of_worker(Row(2, "worker 3", [(5, 8, PULL)]), 9, drawn))
    assert (moment, slice_["ph"], slice_["ts"]) == (5, "X", 5)
    assert arrow == {"ph": "s", "id": 4, "cat": "way", "name": "update", "pid": 2, "tid": 9, "ts": 5}


def test_a_commit_is_a_slice_of_no_length_and_the_global_one_counts_steps():
    commits = [Done(1.0, 2, "global", (), 16, 3.0), Done(2.0, None, "us", (), 0, None)]
    (_, (commit, counter)), (_, (merge,)) = parsed(of_commits(commits, ["global", "us"], NO_ARROWS))
    assert (commit["name"], commit["tid"], commit["dur"], counter["args"]) == ("commit 2", 1, 0, {"local steps": 16})
    assert (merge["name"], merge["tid"], merge["ts"]) == ("merge of another model", 2, 2_000_000)


def test_losses_are_in_order_of_time_and_none_is_no_number():
    commits = [Done(2.0, 1, "global", (), 8, 3.0), Done(3.0, 2, "global", (), 16, math.nan)]
    found = parsed(of_losses(commits, [(1.0, "validation", 4.5)]))
    assert [(moment, event["args"]) for moment, (event,) in found] == [
        (1_000_000, {"validation": 4.5}),
        (2_000_000, {"train": 3.0}),
    ]


def test_processes_and_rows_are_named_and_put_in_order():
    worker = Worker(0, 0, 1.0)
    cluster = Cluster((Region(0, 'a "b"', (worker,)),), (worker,), 1.0, 0.0)
    events = json.loads("[" + ",".join(names(cluster, ["global"], [Row(2, "worker 0", [])])) + "]")
    named = [(each["name"], each["pid"], each.get("tid"), each["args"].get("name")) for each in events]
    assert named[::2] == [
        ("process_name", 1, None, "models"),
        ("process_name", 2, None, 'a "b"'),
        ("process_name", 3, None, "links"),
        ("thread_name", 1, 1, "commits of global"),
        ("thread_name", 2, 2, "worker 0"),
    ]
    assert [each["args"]["sort_index"] for each in events[1::2]] == [1, 2, 3, 1, 2]
