"""The trace: what Perfetto needs to show a run."""

import itertools
import json
import math
from collections import defaultdict

from halos.observers.experiment import Experiment
from halos.observers.trace import Trace, cut_at
from halos.observers.trace_rows import LANES
from halos.values.params import Layout, Params
from halos.values.records import Commit, Evaluation, LostJob, Transfer, Update
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Crash, Crashes, LinkFault, Links, Outages, RegionOutage
from tests.made import share

PARAMS = Params(Layout({"a": (2, 2)}), None)
WORKERS = (Worker(0, 0, 1.0), Worker(1, 1, 0.5))
CLUSTER = Cluster((Region(0, "us", WORKERS[:1]), Region(1, "eu", WORKERS[1:])), WORKERS, 1.0, 0.0)


def experiment(folder, resumed_at=None):
    return Experiment("run", folder, {}, "halos", 1, CLUSTER, 16, math.inf, 64, 4, 4, True, {}, resumed_at)


def job(worker, start, end, steps=1, pull=0.0, push=0.0, server=None):
    compute = (start + pull, end - push)
    return Update(
        0, worker, worker, PARAMS, PARAMS, steps, start, end, 3, (0, steps), 7, (2.0,), (steps,), compute, server
    )  # fmt: skip


def commit(time, version, updates):
    return Commit(time, version, "global", "update", version * 8, (share(*updates),), PARAMS)


def round_trip(worker, start, end, steps=1):
    """An asynchronous job, with its 1 s of pull and 2 s of push."""
    yield Transfer(start, start + 1, 0, worker, 100, "pull", worker, 0)
    yield Transfer(end - 2, end, worker, 0, 50, "push", worker, 0)
    yield job(worker, start, end, steps, pull=1, push=2, server=0)


def tell(observer, records):
    hear = {
        Update: "on_update",
        LostJob: "on_lost",
        Transfer: "on_transfer",
        Commit: "on_commit",
        Evaluation: "on_evaluate",
    }
    for record in records:
        getattr(observer, hear[type(record)])(record)


def trace(folder, records, limit=1000, faults=None, seconds=0.0):
    given = experiment(folder)
    if faults is not None:
        faults.connect(CLUSTER, 0)
        given = Experiment(**{**vars(given), "faults": faults})
    observer = Trace(limit)
    observer.on_start(given)
    tell(observer, records)
    observer.on_finish({"simulated_seconds": seconds})
    return Picture(json.loads((folder / "trace.json").read_text()))


class Picture:
    """A parsed trace, by the names of processes and rows; checks what the format asks of it."""

    def __init__(self, content):
        self.about, self.events = content["otherData"], content["traceEvents"]
        names = {
            (each["name"], each["pid"], each.get("tid")): each["args"]["name"]
            for each in self.events
            if each["ph"] == "M" and each["name"].endswith("_name")
        }
        self.rows, self.commits = defaultdict(list), defaultdict(list)
        drawn = [each for each in self.events if each["ph"] != "M"]
        assert [each["ts"] for each in drawn] == sorted(each["ts"] for each in drawn)
        for each in drawn:
            if each["ph"] == "X":
                process, row = names["process_name", each["pid"], None], names["thread_name", each["pid"], each["tid"]]
                assert isinstance(each["ts"], int)
                assert each["dur"] >= 0
                self.rows[process, row].append((each["ts"] / 1e6, (each["ts"] + each["dur"]) / 1e6, each["name"]))
            elif each["ph"] == "i":
                row = names["thread_name", each["pid"], each["tid"]]
                assert names["process_name", each["pid"], None] == "models"
                self.commits[row].append((each["ts"] / 1e6, each["name"]))
        for slices in self.rows.values():
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(slices))


def test_a_round_trip_is_pull_compute_push_on_the_worker_s_row_and_two_transfers_on_links(tmp_path):
    picture = trace(tmp_path, round_trip(1, 0.0, 10.0, steps=7))
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [(0, 1, "pull"), (1, 8, "steps 7"), (8, 10, "push")]
    assert picture.rows["links", "us -> eu"] == [(0, 1, "pull")]
    assert picture.rows["links", "eu -> us"] == [(8, 10, "push")]
    (compute,) = [each for each in picture.events if each.get("cat") == "compute"]
    assert compute["args"] == {"from_version": 3, "lr_step": 7}


def test_a_collective_fills_what_a_worker_did_not_compute_of_it(tmp_path):
    records = [
        job(0, 0, 4),
        job(1, 0, 2),
        Transfer(4, 7, None, None, 8, "all_reduce"),
        job(0, 4, 5),  # overlapped with it
    ]
    picture = trace(tmp_path, records)
    assert picture.rows["us", "worker 0 (speed 1)"] == [(0, 4, "steps 1"), (4, 5, "steps 1"), (5, 7, "all_reduce")]
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [(0, 2, "steps 1"), (4, 7, "all_reduce")]  # idle from 2 to 4
    assert picture.rows["links", "all-reduce"] == [(4, 7, "all_reduce")]


def test_overlapping_transfers_of_a_link_get_lanes(tmp_path):
    records = [Transfer(start, start + 3, 0, 1, 8, "send") for start in (0, 1, 2, 3)]
    picture = trace(tmp_path, records)
    assert picture.rows["links", "us -> eu"] == [(0, 3, "send"), (3, 6, "send")]
    assert picture.rows["links", "us -> eu #2"] == [(1, 4, "send")]
    assert picture.rows["links", "us -> eu #3"] == [(2, 5, "send")]


def test_outages_are_slices_on_workers_rows_and_hide_collectives(tmp_path):
    faults = Crashes(at=[Crash(0, 3.0, 4.0), Crash(1, 90.0, 50.0), Crash(1, 200.0)])
    rows = trace(
        tmp_path, [job(1, 0, 4), Transfer(4, 9, None, None, 8, "all_reduce")], faults=faults, seconds=100.0
    ).rows
    assert rows["us", "worker 0 (speed 1)"] == [(3, 7, "down"), (7, 9, "all_reduce")]
    assert rows["eu", "worker 1 (speed 0.5)"] == [(0, 4, "steps 1"), (4, 9, "all_reduce"), (90, 100, "down")]


def test_too_many_outages_are_counted_instead(tmp_path):
    faults = Crashes(at=[Crash(0, 10.0 * each, 1.0) for each in range(9)])
    picture = trace(tmp_path, [], 5, faults, 100.0)
    assert len(picture.rows["us", "worker 0 (speed 1)"]) == 5
    assert picture.about["outages_not_drawn"] == 4


def test_a_lost_job_is_a_slice_up_to_its_loss_and_says_why(tmp_path):
    lost = LostJob(8.5, 1, 1, 6, 1.0, 3.5, 'worker "1" was down')
    picture = trace(tmp_path, [lost, job(1, 9, 12, 6)], faults=Crashes(at=[Crash(1, 3.5, 5.5)]), seconds=20.0)
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [(1.0, 3.5, "lost"), (3.5, 9.0, "down"), (9, 12, "steps 6")]
    (slice,) = [each for each in picture.events if each["name"] == "lost"]
    assert slice["args"] == {"steps": 6, "why": 'worker "1" was down', "told_at_seconds": 8.5}


def test_links_that_are_down_or_slow_have_a_row_of_their_own_also_if_they_carry_nothing(tmp_path):
    one_way = {"src": 0, "dst": 1, "both_ways": False}
    slow = LinkFault(at_seconds=4.0, seconds=4.0, share=0.25, **one_way)
    faults = Links(at=[LinkFault(at_seconds=2.0, seconds=3.0, **one_way), slow, LinkFault(1, 1, 50.0)])
    picture = trace(tmp_path, [Transfer(0, 7, 0, 1, 8, "send")], faults=faults, seconds=60.0)
    assert {row: slices for (process, row), slices in picture.rows.items() if process == "links"} == {
        "us -> eu": [(0, 7, "send")],
        "us -> eu (faults)": [(2, 5, "down"), (5, 8, "slow")],  # from 4 to 5 it is both
        "eu -> eu (faults)": [(50, 60, "down")],
    }
    assert [each["args"] for each in picture.events if each["name"] == "slow"] == [{"share": 0.25}]


def test_a_region_that_is_cut_off_takes_its_links_along(tmp_path):
    rows = trace(tmp_path, [], faults=Outages(at=[RegionOutage(1, 5.0, 5.0)]), seconds=8.0).rows
    named = ["us -> eu", "eu -> us", "eu -> eu"]
    assert rows == {
        ("eu", "worker 1 (speed 0.5)"): [(5, 8, "down")],
        **{("links", f"{link} (faults)"): [(5, 8, "down")] for link in named},
    }


def test_too_many_faults_of_links_are_counted_instead(tmp_path):
    at = [LinkFault(0, 1, 10.0 * each, 1.0, both_ways=False) for each in range(9)]
    picture = trace(tmp_path, [], 5, Links(at=at), 100.0)
    assert len(picture.rows["links", "us -> eu (faults)"]) == 5
    assert picture.about["link_faults_not_drawn"] == 4


def test_every_server_has_a_row_of_its_commits_and_of_where_it_took_over_another_s_model(tmp_path):
    update = job(0, 0, 2)
    given = (share(update),)
    records = [
        Commit(1.0, 1, "local-10", "update", 1, given, PARAMS),
        Commit(2.0, 1, "local-2", "update", 1, given, PARAMS),
        commit(3.0, 1, [update]),
        Commit(4.0, 1, "local-2", "merge", 1, (), PARAMS),
    ]
    picture = trace(tmp_path, records)
    assert picture.commits == {
        "commits of global": [(3, "commit 1")],
        "commits of local-2": [(2, "commit 1"), (4, "merge")],
        "commits of local-10": [(1, "commit 1")],
    }
    rows = [each["args"]["name"] for each in picture.events if each["ph"] == "M" and each["name"] == "thread_name"]
    assert rows[:3] == ["commits of global", "commits of local-2", "commits of local-10"]


def test_a_link_has_only_so_many_lanes_and_the_file_says_what_is_missing(tmp_path):
    picture = trace(tmp_path, [Transfer(0, 3, 0, 1, 8, "send") for _ in range(LANES + 5)])
    assert len(picture.rows) == LANES
    assert picture.about["transfers_not_drawn"] == 5


def test_commits_are_instants_and_steps_and_losses_are_counters(tmp_path):
    update = job(0, 0, 2)
    evaluation = Evaluation(2.0, 1, 8, 8, 64, 3.5, "validation")
    picture = trace(tmp_path, [update, commit(2.0, 1, [update]), evaluation])
    instants = [(each["ts"], each["name"]) for each in picture.events if each["ph"] == "i"]
    assert instants == [(2_000_000, "commit 1")]
    counters = [(each["name"], each["args"]) for each in picture.events if each["ph"] == "C"]
    assert counters == [("local", {"steps": 8}), ("loss", {"train": 2.0}), ("loss", {"validation": 3.5})]


def test_every_process_and_row_has_a_name_and_a_place(tmp_path):
    picture = trace(tmp_path, [*round_trip(0, 0, 5), *round_trip(1, 0, 5)])
    meta = [each for each in picture.events if each["ph"] == "M"]
    processes = [each["args"]["name"] for each in meta if each["name"] == "process_name"]
    assert processes == ["models", "us", "eu", "links"]
    places = [each["args"]["sort_index"] for each in meta if each["name"] == "thread_sort_index"]
    assert places == sorted(places)
    for each in picture.events:
        if each["ph"] == "X":
            assert {"pid", "tid", "ts", "dur", "name", "cat"} <= set(each)


def test_a_long_run_is_cut_and_says_where(tmp_path):
    records = [record for start in range(0, 100, 10) for record in round_trip(0, start, start + 10)]
    picture = trace(tmp_path, records, limit=15)  # a round trip draws five slices
    assert picture.about["cut_at_seconds"] == 30.0
    assert len([each for each in picture.events if each["ph"] == "X"]) == 15
    assert cut_at(tmp_path / "trace.json") == 30.0


def test_a_trace_that_is_not_cut_says_so(tmp_path):
    assert trace(tmp_path, round_trip(0, 0, 10)).about["cut_at_seconds"] is None
    assert cut_at(tmp_path / "trace.json") is None


def test_another_s_trace_is_not_known_to_be_cut(tmp_path):
    path = tmp_path / "trace.json"
    for content in ("", "[]", "[\n", '{"otherData": 3, "traceEvents": [\n]}', "\0\0"):
        path.write_text(content)
        assert cut_at(path) is None


def test_an_odd_name_does_not_break_the_file(tmp_path):
    worker = Worker(0, 0, 1.0)
    cluster = Cluster((Region(0, 'a "b" \\ é', (worker,)),), (worker,), 1.0, 0.0)
    given = experiment(tmp_path)
    observer = Trace()
    observer.on_start(Experiment(**{**vars(given), "cluster": cluster, "name": 'x "y"'}))
    observer.on_finish({})
    content = json.loads((tmp_path / "trace.json").read_text())
    assert content["otherData"]["name"] == 'x "y"'
    assert content["traceEvents"][2]["args"]["name"] == 'a "b" \\ é'
