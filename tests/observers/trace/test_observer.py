"""The trace: what Perfetto needs to show a run."""

import itertools
import json
import math
from collections import defaultdict

from halos.observers.experiment import Experiment
from halos.observers.trace.observer import Trace, cut_at
from halos.observers.trace.rows import LANES
from halos.values.params import Layout, Params
from halos.values.records import Commit, Evaluation, LostJob, Transfer, Update
from halos.world.cluster import Cluster, Region, Worker
from halos.world.faults import Crash, Crashes, LinkFault, Links, Outages, RegionOutage
from tests.made import share

PARAMS = Params(Layout({"a": (2, 2)}), None)
WORKERS = (Worker(0, 0, 1.0), Worker(1, 1, 0.5))
CLUSTER = Cluster((Region(0, "us", WORKERS[:1]), Region(1, "eu", WORKERS[1:])), WORKERS, 1.0, 0.0)


WAIT = "wait for all-reduce"
IDS = itertools.count()


def experiment(folder, resumed_at=None):
    return Experiment("run", folder, {}, "halos", 1, CLUSTER, 16, math.inf, 64, 4, 4, True, {}, resumed_at)


def job(worker, start, end, steps=1, pull=0.0, push=0.0, server=None):
    compute = (start + pull, end - push)
    return Update(
        next(IDS), worker, worker, PARAMS, PARAMS, steps, start, end, 3, (0, steps), 7, (2.0,), (steps,), compute,
        server,
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


def trace(folder, records, limit=1000, faults=None, seconds=0.0, unfinished=None):
    given = experiment(folder)
    if faults is not None:
        faults.connect(CLUSTER, 0)
        given = Experiment(**{**vars(given), "faults": faults})
    observer = Trace(limit)
    observer.on_start(given)
    tell(observer, records)
    observer.on_finish({"simulated_seconds": seconds, "unfinished": unfinished or {"jobs": []}})
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
        self.rows, self.commits, self.arrows = defaultdict(list), defaultdict(list), defaultdict(list)
        latest = {}  # slice of each row
        drawn = [each for each in self.events if each["ph"] != "M"]
        assert [each["ts"] for each in drawn] == sorted(each["ts"] for each in drawn)
        for each in drawn:
            if each["ph"] == "X":
                process, row = names["process_name", each["pid"], None], names["thread_name", each["pid"], each["tid"]]
                assert isinstance(each["ts"], int)
                assert each["dur"] >= 0
                assert isinstance(each["dur"], int)
                if process == "models":
                    assert each["dur"] == 0
                    self.commits[row].append((each["ts"] / 1e6, each["name"]))
                    latest[each["pid"], each["tid"]] = each
                    continue
                self.rows[process, row].append((each["ts"] / 1e6, (each["ts"] + each["dur"]) / 1e6, each["name"]))
                latest[each["pid"], each["tid"]] = each
            elif each["ph"] in "stf":
                self._arrow(each, latest[each["pid"], each["tid"]], names["thread_name", each["pid"], each["tid"]])
        for slices in self.rows.values():
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(slices))
        for way in self.arrows.values():
            assert way[0][0] == "s" and way[-1][0] == "f"  # begun once, ended once
            assert all(phase == "t" for phase, *_ in way[1:-1])

    def _arrow(self, event, slice, row):
        """An arrow is bound to the slice of its row that was begun last, which its moment lies in."""
        assert slice["ts"] <= event["ts"] <= slice["ts"] + slice["dur"]
        assert event["ph"] != "f" or event["bp"] == "e"
        way = self.arrows[event["cat"], event["name"], event["id"]]
        way.append((event["ph"], event["ts"] / 1e6, row, slice["name"]))

    def ways(self, name):
        """Each arrow of that name, as the (moment, row, slice) that it passes."""
        return [[stop[1:] for stop in way] for (_, other, _), way in self.arrows.items() if other == name]


def test_a_round_trip_is_pull_compute_push_on_the_worker_s_row_and_two_transfers_on_links(tmp_path):
    picture = trace(tmp_path, round_trip(1, 0.0, 10.0, steps=7))
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [(0, 1, "pull"), (1, 8, "train 7 steps"), (8, 10, "push")]
    assert picture.rows["links", "us → eu"] == [(0, 1, "pull to worker 1")]
    assert picture.rows["links", "eu → us"] == [(8, 10, "push from worker 1")]
    (compute,) = [each for each in picture.events if each.get("cat") == "compute"]
    assert compute["args"] == {"from_version": 3, "lr_step": 7}


def test_arrows_lead_from_a_commit_s_model_to_its_training_and_from_the_update_to_its_commit(tmp_path):
    """Two round trips of one worker: the second begins with the commit that the first brought about."""
    first, second = list(round_trip(1, 0.0, 10.0, 7)), list(round_trip(1, 10.0, 20.0, 7))
    picture = trace(tmp_path, [*first, commit(10.0, 1, [first[2]]), *second, commit(20.0, 2, [second[2]])])
    worker = "worker 1 (speed 0.5)"
    assert picture.ways("model") == [
        [(0, "us → eu", "pull to worker 1"), (1, worker, "train 7 steps")],  # the initial model: nobody's commit
        [
            (10, "commits of global", "commit 1"),
            (10, "us → eu", "pull to worker 1"),
            (11, worker, "train 7 steps"),
        ],
    ]
    assert picture.ways("update") == [
        [
            (8, worker, "push"),
            (8, "eu → us", "push from worker 1"),
            (10, "commits of global", "commit 1"),
        ],
        [
            (18, worker, "push"),
            (18, "eu → us", "push from worker 1"),
            (20, "commits of global", "commit 2"),
        ],
    ]


def test_an_update_that_no_commit_takes_in_goes_as_far_as_its_link(tmp_path):
    picture = trace(tmp_path, round_trip(1, 0.0, 10.0))
    assert picture.ways("update") == [
        [(8, "worker 1 (speed 0.5)", "push"), (8, "eu → us", "push from worker 1")],
    ]


def test_an_update_s_arrow_ends_at_the_first_commit_that_has_it_and_what_is_sent_on_has_its_own(tmp_path):
    """A local server commits at 10 s and sends on at once; the global one commits, and sends back, at 12 s."""
    *exchange, update = round_trip(1, 0.0, 10.0)
    records = [
        *exchange,
        update,
        Commit(10.0, 1, "local-1", "update", 1, (share(update),), PARAMS),
        Transfer(10.0, 12.0, 1, 0, 8, "send"),
        commit(12.0, 1, [update]),
        Transfer(12.0, 13.0, 0, 1, 8, "send"),
        Commit(13.0, 1, "local-1", "merge", 1, (), PARAMS),
    ]
    picture = trace(tmp_path, records)
    (way,) = picture.ways("update")
    assert way[-1] == (10, "commits of local-1", "commit 1")
    assert picture.ways("send") == [
        [(10, "commits of local-1", "commit 1"), (10, "eu → us", "send"), (12, "commits of global", "commit 1")],
        [
            (12, "commits of global", "commit 1"),
            (12, "us → eu", "send"),
            (13, "commits of local-1", "merge of another model"),
        ],
    ]


def test_a_collective_has_the_arrow_of_all_that_it_brings(tmp_path):
    jobs = [job(0, 0, 4), job(1, 0, 2)]
    records = [*jobs, Transfer(4, 7, None, None, 8, "all_reduce"), commit(7.0, 1, jobs)]
    picture = trace(tmp_path, records)
    assert picture.ways("update") == []
    assert picture.ways("all_reduce") == [[(4, "all-reduce", "all-reduce"), (7, "commits of global", "commit 1")]]


def test_a_job_without_a_server_has_an_arrow_from_its_end_to_a_commit_that_comes_of_no_collective(tmp_path):
    """What was collected at 7 s is merged at 8 s only."""
    jobs = [job(0, 0, 4), job(1, 0, 2)]
    records = [*jobs, Transfer(4, 7, None, None, 8, "all_reduce"), commit(8.0, 1, jobs)]
    picture = trace(tmp_path, records)
    commit_1 = (8, "commits of global", "commit 1")
    assert sorted(picture.ways("update")) == [
        [(1.999999, "worker 1 (speed 0.5)", "train 1 step"), commit_1],
        [(3.999999, "worker 0 (speed 1)", "train 1 step"), commit_1],
    ]
    assert picture.ways("all_reduce") == []


def test_what_is_sent_from_a_commit_and_arrives_at_none_has_no_arrow(tmp_path):
    """At 7 s a model leaves for whoever will take it at 9 s: there is nothing to lead to."""
    jobs = [job(0, 0, 4)]
    records = [*jobs, commit(7.0, 1, jobs), Transfer(7.0, 9.0, 0, 1, 8, "send")]
    assert trace(tmp_path, records).ways("send") == []


def test_of_two_commits_at_one_moment_nobody_knows_which_was_sent(tmp_path):
    records = [
        Commit(5.0, 1, "local-0", "update", 1, (), PARAMS),
        Commit(5.0, 1, "local-1", "update", 1, (), PARAMS),
        Transfer(5.0, 6.0, 0, 1, 8, "send"),
    ]
    assert not trace(tmp_path, records).arrows


def test_a_transfer_says_its_size_in_megabytes(tmp_path):
    picture = trace(tmp_path, [Transfer(0.0, 1.0, 0, 1, 281_706_496, "send"), Transfer(1.0, 2.0, 0, 1, 50, "send")])
    assert [each["args"] for each in picture.events if each["ph"] == "X"] == [{"MB": 281.7}, {"MB": 5e-05}]


def test_what_takes_no_time_has_no_arrow(tmp_path):
    records = [Transfer(5.0, 5.0, 0, 0, 8, "send"), Commit(5.0, 1, "local-0", "update", 1, (), PARAMS), job(0, 5, 5)]
    assert not trace(tmp_path, [*records, commit(9.0, 1, [records[2]])]).arrows


def test_what_the_end_cut_off_is_drawn_up_to_there_as_unfinished(tmp_path):
    """At 10 s worker 0 trains, and worker 1 has trained and pushes; a collective is under way."""
    never = {"lost": None, "steps": 7}
    jobs = [
        {"worker": 0, "began": 4.0, "computes": 5.0, "until": 12.0, **never},
        {"worker": 1, "began": 3.0, "computes": 4.0, "until": 9.0, **never},
    ]
    picture = trace(tmp_path, [job(0, 0, 4)], seconds=10.0, unfinished={"jobs": jobs, "collective_since": 2.0})
    assert picture.rows["us", "worker 0 (speed 1)"] == [
        (0, 4, "train 1 step"),
        (4, 5, "pull"),
        (5, 10, "train 7 steps (unfinished)"),
    ]
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [
        (2, 3, WAIT),
        (3, 4, "pull"),
        (4, 9, "train 7 steps"),
        (9, 10, "push (unfinished)"),
    ]
    assert picture.rows["links", "all-reduce"] == [(2, 10, "all-reduce (unfinished)")]


def test_what_is_still_pulled_and_what_is_lost_untold_are_unfinished_too(tmp_path):
    jobs = [
        {"worker": 0, "began": 4.0, "computes": 15.0, "until": 22.0, "lost": None, "steps": 1},
        {"worker": 1, "began": 3.0, "computes": 3.0, "until": 9.0, "lost": 6.0, "steps": 1},
    ]
    picture = trace(tmp_path, [], seconds=10.0, unfinished={"jobs": jobs, "collective_since": None})
    assert picture.rows["us", "worker 0 (speed 1)"] == [(4, 10, "pull (unfinished)")]
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [(3, 6, "lost (nobody was told yet)")]


def test_of_a_run_that_is_cut_nothing_is_unfinished(tmp_path):
    jobs = [{"worker": 0, "began": 90.0, "computes": 91.0, "until": 99.0, "lost": None, "steps": 1}]
    records = [record for start in range(0, 100, 10) for record in round_trip(1, start, start + 10)]
    picture = trace(tmp_path, records, limit=15, seconds=95.0, unfinished={"jobs": jobs, "collective_since": 94.0})
    assert "unfinished" not in json.dumps(picture.events)


def test_a_collective_fills_what_a_worker_did_not_compute_of_it(tmp_path):
    records = [
        job(0, 0, 4),
        job(1, 0, 2),
        Transfer(4, 7, None, None, 8, "all_reduce"),
        job(0, 4, 5),  # overlapped with it
    ]
    picture = trace(tmp_path, records)
    assert picture.rows["us", "worker 0 (speed 1)"] == [(0, 4, "train 1 step"), (4, 5, "train 1 step"), (5, 7, WAIT)]
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [(0, 2, "train 1 step"), (4, 7, WAIT)]  # idle from 2 to 4
    assert picture.rows["links", "all-reduce"] == [(4, 7, "all-reduce")]


def test_overlapping_transfers_of_a_link_get_lanes(tmp_path):
    records = [Transfer(start, start + 3, 0, 1, 8, "send") for start in (0, 1, 2, 3)]
    picture = trace(tmp_path, records)
    assert picture.rows["links", "us → eu"] == [(0, 3, "send"), (3, 6, "send")]
    assert picture.rows["links", "us → eu #2"] == [(1, 4, "send")]
    assert picture.rows["links", "us → eu #3"] == [(2, 5, "send")]


def test_outages_are_slices_on_workers_rows_and_hide_collectives(tmp_path):
    faults = Crashes(at=[Crash(0, 3.0, 4.0), Crash(1, 90.0, 50.0), Crash(1, 200.0)])
    rows = trace(
        tmp_path, [job(1, 0, 4), Transfer(4, 9, None, None, 8, "all_reduce")], faults=faults, seconds=100.0
    ).rows
    assert rows["us", "worker 0 (speed 1)"] == [(3, 7, "down"), (7, 9, WAIT)]
    assert rows["eu", "worker 1 (speed 0.5)"] == [(0, 4, "train 1 step"), (4, 9, WAIT), (90, 100, "down")]


def test_too_many_outages_are_counted_instead(tmp_path):
    faults = Crashes(at=[Crash(0, 10.0 * each, 1.0) for each in range(9)])
    picture = trace(tmp_path, [], 5, faults, 100.0)
    assert len(picture.rows["us", "worker 0 (speed 1)"]) == 5
    assert picture.about["outages_not_drawn"] == 4


def test_a_lost_job_is_a_slice_up_to_its_loss_and_says_why(tmp_path):
    lost = LostJob(8.5, 1, 1, 6, 1.0, 3.5, 'worker "1" was down')
    picture = trace(tmp_path, [lost, job(1, 9, 12, 6)], faults=Crashes(at=[Crash(1, 3.5, 5.5)]), seconds=20.0)
    assert picture.rows["eu", "worker 1 (speed 0.5)"] == [
        (1.0, 3.5, "lost"),
        (3.5, 9.0, "down"),
        (9, 12, "train 6 steps"),
    ]
    (slice,) = [each for each in picture.events if each["name"] == "lost"]
    assert slice["args"] == {"steps": 6, "why": 'worker "1" was down', "told_at_seconds": 8.5}


def test_links_that_are_down_or_slow_have_a_row_of_their_own_also_if_they_carry_nothing(tmp_path):
    one_way = {"src": 0, "dst": 1, "both_ways": False}
    slow = LinkFault(at_seconds=4.0, seconds=4.0, share=0.25, **one_way)
    faults = Links(at=[LinkFault(at_seconds=2.0, seconds=3.0, **one_way), slow, LinkFault(1, 1, 50.0)])
    picture = trace(tmp_path, [Transfer(0, 7, 0, 1, 8, "send")], faults=faults, seconds=60.0)
    assert {row: slices for (process, row), slices in picture.rows.items() if process == "links"} == {
        "us → eu": [(0, 7, "send")],
        "us → eu (faults)": [(2, 5, "down"), (5, 8, "slow")],  # from 4 to 5 it is both
        "eu → eu (faults)": [(50, 60, "down")],
    }
    assert [each["args"] for each in picture.events if each["name"] == "slow"] == [{"share": 0.25}]


def test_a_region_that_is_cut_off_takes_its_links_along(tmp_path):
    rows = trace(tmp_path, [], faults=Outages(at=[RegionOutage(1, 5.0, 5.0)]), seconds=8.0).rows
    named = ["us → eu", "eu → us", "eu → eu"]
    assert rows == {
        ("eu", "worker 1 (speed 0.5)"): [(5, 8, "down")],
        **{("links", f"{link} (faults)"): [(5, 8, "down")] for link in named},
    }


def test_too_many_faults_of_links_are_counted_instead(tmp_path):
    at = [LinkFault(0, 1, 10.0 * each, 1.0, both_ways=False) for each in range(9)]
    picture = trace(tmp_path, [], 5, Links(at=at), 100.0)
    assert len(picture.rows["links", "us → eu (faults)"]) == 5
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
        "commits of local-2": [(2, "commit 1"), (4, "merge of another model")],
        "commits of local-10": [(1, "commit 1")],
    }
    rows = [each["args"]["name"] for each in picture.events if each["ph"] == "M" and each["name"] == "thread_name"]
    assert rows[:3] == ["commits of global", "commits of local-2", "commits of local-10"]


def test_a_link_has_only_so_many_lanes_and_the_file_says_what_is_missing(tmp_path):
    picture = trace(tmp_path, [Transfer(0, 3, 0, 1, 8, "send") for _ in range(LANES + 5)])
    assert len(picture.rows) == LANES
    assert picture.about["transfers_not_drawn"] == 5


def test_commits_are_marks_and_steps_and_losses_are_counters(tmp_path):
    update = job(0, 0, 2)
    evaluation = Evaluation(2.0, 1, 8, 8, 64, 3.5, "validation")
    picture = trace(tmp_path, [update, commit(2.0, 1, [update]), evaluation])
    assert picture.commits == {"commits of global": [(2.0, "commit 1")]}
    counters = [(each["name"], each["args"]) for each in picture.events if each["ph"] == "C"]
    assert counters == [("committed", {"local steps": 8}), ("loss", {"train": 2.0}), ("loss", {"validation": 3.5})]


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
    assert len(picture.arrows) == 6  # a model and an update each
    assert cut_at(tmp_path / "trace.json") == 30.0


def test_a_trace_that_is_not_cut_says_so(tmp_path):
    assert trace(tmp_path, round_trip(0, 0, 10)).about["cut_at_seconds"] is None
    assert cut_at(tmp_path / "trace.json") is None


def test_another_s_trace_is_not_known_to_be_cut(tmp_path):
    path = tmp_path / "trace.json"
    for content in ("", "[]", "[\n", '{"otherData": 3, "traceEvents": [\n]}', "\0\0"):
        path.write_text(content)
        assert cut_at(path) is None


def test_arrows_and_names_cost_less_than_half_of_what_slices_did(tmp_path):
    """Of 300 round trips: five slices, two counters or commits, and two arrows of three stops each."""
    records = [record for start in range(0, 3000, 10) for record in round_trip(1, start, start + 10, 16)]
    jobs = [record for record in records if isinstance(record, Update)]
    trace(tmp_path, [*records, *(commit(each.time, n, [each]) for n, each in enumerate(jobs))], limit=10_000)
    # Without arrows, and with blanks between keys and values, it was 995 bytes each.
    assert (tmp_path / "trace.json").stat().st_size / 300 < 1.5 * 995


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
