"""TensorBoard's curves, read back with TensorBoard."""

import math
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as Charts

from halos.observers.experiment import Experiment
from halos.observers.tensorboard.observer import TensorBoard
from halos.observers.tensorboard.thinning import POINTS
from halos.values.params import Layout, Params
from halos.values.records import Commit, EndToEnd, Evaluation, Transfer, Update
from halos.world.cluster import Cluster, Region, Worker
from tests.made import share

PARAMS = Params(Layout({"a": (2, 2)}), None)
WORKERS = (Worker(0, 0, 1.0), Worker(1, 1, 0.5))
CLUSTER = Cluster((Region(0, "us", WORKERS[:1]), Region(1, "eu", WORKERS[1:])), WORKERS, 1.0, 0.0)
TOKENS_PER_STEP = 10
REST = {"transfer": 0.0, "idle": 0.0, "down": 0.0}


def experiment(folder, local_steps=16, real=True, resumed_at=None):
    config = {"policy": {"name": "diloco", "outer": {"lr": 0.7}}, "seed": 1}
    return Experiment(
        "run", folder, config, "diloco", 1, CLUSTER, local_steps, math.inf, TOKENS_PER_STEP, 4, 4, real, {}, resumed_at
    )  # fmt: skip


def update(time, losses, lr_step=0):
    return Update(
        0, 0, 0, PARAMS, PARAMS, 4, time - 1, time, 0, (0, 4), lr_step, losses, (1,) * len(losses), (time - 1, time)
    )  # fmt: skip


def commit(time, version, updates, staleness=0, drift=0.0, server="global"):
    # End to end twice as stale and three times as far; and of one it is not known how far.
    ways = (EndToEnd(2 * staleness, 1.0, 3 * drift), EndToEnd(2 * staleness, 1.0, math.nan))
    shares = tuple(share(each, staleness=staleness, drift=drift, ways=ways) for each in updates)
    return Commit(time, version, server, "update", 8 * version, shares, PARAMS)


def rounds(*numbers, losses=(4.0, 2.0)):
    """Rounds of two workers, 4 steps each, ending at 10, 20, … seconds."""
    for number in numbers:
        now = 10.0 * number
        updates = [update(now - 1, (loss / number,) if losses else (), lr_step=number) for loss in losses or (0, 0)]
        yield from updates
        yield Transfer(now - 1, now, None, None, 100, "all_reduce")
        yield commit(now, number, updates, staleness=number, drift=0.5)
        if losses:
            yield Evaluation(now, number, 8 * number, 8 * number, 80 * number, 5.0 / number, "validation")


def tell(observer, records):
    hear = {Update: "on_update", Transfer: "on_transfer", Commit: "on_commit", Evaluation: "on_evaluate"}
    for record in records:
        name = hear[type(record)]
        if hasattr(observer, name):
            getattr(observer, name)(record)


def curves(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def points(events, tag):
    """(step, simulated seconds, value) of a curve; None: not a number."""
    return [
        (point.step, point.wall_time, None if math.isnan(point.value) else point.value) for point in events.Scalars(tag)
    ]


def relative(events, tag):
    """Where TensorBoard draws a curve's points if the horizontal axis is RELATIVE: seconds since its own first."""
    times = [point.wall_time for point in events.Scalars(tag)]
    return [time - times[0] for time in times]


def watch(given, records, summary=None):
    observer = TensorBoard()
    observer.on_start(given)
    tell(observer, records)
    observer.on_finish(summary or {})
    return curves(given.folder)


def test_losses_are_written_against_steps_and_tokens_on_the_simulated_clock(tmp_path):
    events = watch(experiment(tmp_path), rounds(1, 2))
    # Before a curve's first value, not a number at 0. The training loss is the mean of 4 and 2, and half that.
    assert points(events, "loss/train") == [(0, 0.0, None), (8, 10.0, 3.0), (16, 20.0, 1.5)]
    assert points(events, "loss/validation") == [(0, 0.0, None), (8, 10.0, 5.0), (16, 20.0, 2.5)]
    assert points(events, "loss by tokens/train") == [(0, 0.0, None), (80, 10.0, 3.0), (160, 20.0, 1.5)]
    assert points(events, "loss by tokens/validation") == [(0, 0.0, None), (80, 10.0, 5.0), (160, 20.0, 2.5)]
    # And with simulated milliseconds for steps.
    in_time = "loss over simulated time"
    assert points(events, f"{in_time}/train") == [(0, 0.0, None), (10_000, 10.0, 3.0), (20_000, 20.0, 1.5)]
    assert points(events, f"{in_time}/validation") == [(0, 0.0, None), (10_000, 10.0, 5.0), (20_000, 20.0, 2.5)]


def test_metrics_that_are_known_have_curves_by_set_and_model(tmp_path):
    metrics = {"perplexity": 8.0, "accuracy": None}
    records = [Evaluation(5.0, 1, 8, 8, 80, 2.0, "wiki", of, metrics) for of in ("global", "workers")]
    events = watch(experiment(tmp_path), records)
    for name in ("wiki", "wiki of workers"):
        assert points(events, f"metrics/perplexity on {name}") == [(0, 0.0, None), (8, 5.0, 8.0)]
    assert not [tag for tag in events.Tags()["scalars"] if "accuracy" in tag]


def test_a_point_weighs_the_commits_since_the_last_one_by_their_local_steps(tmp_path):
    one = update(9.0, (4.0,))  # 4 steps
    two = update(9.5, (1.0,))._replace(steps=12, chunks=(12,))
    records = [commit(10.0, 1, [one]), commit(10.5, 1, [two])]  # both at half the budget: one point for the second
    events = watch(experiment(tmp_path), [*records, commit(20.0, 2, [one])])
    assert points(events, "loss/train")[-1] == (16, 20.0, 1.75)  # (12 · 1 + 4 · 4) / 16


def test_a_first_value_at_simulated_0_is_itself_the_first_point(tmp_path):
    events = watch(experiment(tmp_path), [Evaluation(0.0, 0, 0, 0, 0, 6.0, "validation"), *rounds(1)])
    assert points(events, "loss/validation") == [(0, 0.0, 6.0), (8, 10.0, 5.0)]


def test_relative_is_simulated_time_for_every_curve_whenever_it_begins(tmp_path):
    late = [Transfer(29.0, 30.0, 0, 1, 5, "send"), Evaluation(30.0, 3, 24, 24, 240, 1.0, "german")]
    events = watch(experiment(tmp_path, 24), [*rounds(1, 2), *late, *rounds(3)])
    tags = set(events.Tags()["scalars"])
    assert relative(events, "loss/german") == [0.0, 30.0]
    assert relative(events, "traffic/us → eu [MB]") == [0.0, 30.0]
    late_ones = {tag for tag in tags if "german" in tag or "sends" in tag or "→" in tag}
    assert len(late_ones) == 5
    assert {tuple(relative(events, tag)) for tag in tags - late_ones} == {(0.0, 10.0, 20.0, 30.0)}


def test_the_losses_come_first(tmp_path):
    """TensorBoard orders groups by name, and opens the first two."""
    events = watch(experiment(tmp_path), rounds(1))
    groups = sorted({tag.split("/")[0] for tag in events.Tags()["scalars"]})
    assert groups[:2] == ["loss", "loss by tokens"]


def test_staleness_drift_traffic_and_time_have_curves_with_units(tmp_path):
    sent = [Transfer(5.0, 6.0, 0, 1, 1_500_000, "send"), Transfer(5.0, 6.0, 1, 0, 250_000, "send")]
    events = watch(experiment(tmp_path), [*sent, *rounds(1, 2)])
    assert points(events, "staleness/hop [versions]") == [(0, 0.0, None), (8, 10.0, 1.0), (16, 20.0, 2.0)]
    assert points(events, "parameter drift/hop [L2 distance]") == [(0, 0.0, None), (8, 10.0, 0.5), (16, 20.0, 0.5)]
    assert points(events, "staleness/end to end [versions]")[1:] == [(8, 10.0, 2.0), (16, 20.0, 4.0)]
    assert points(events, "parameter drift/end to end [L2 distance]")[1:] == [(8, 10.0, 1.5), (16, 20.0, 1.5)]
    assert points(events, "traffic/us → eu [MB]") == [(0, 0.0, 0.0), (8, 10.0, 1.5), (16, 20.0, 1.5)]
    assert points(events, "traffic/eu → us [MB]")[1] == (8, 10.0, 0.25)
    assert points(events, "traffic/sends [MB]")[1] == (8, 10.0, 1.75)
    assert points(events, "traffic/all-reduces [MB]")[2] == (16, 20.0, pytest.approx(200 / 1e6))
    assert points(events, "traffic/total [MB]")[2] == (16, 20.0, pytest.approx(1.7502))
    assert points(events, "progress/learning rate [steps of its schedule]") == [
        (0, 0.0, 0.0),
        (8, 10.0, 1.0),
        (16, 20.0, 2.0),
    ]
    assert points(events, "progress/global model [versions]")[2] == (16, 20.0, 2.0)
    assert points(events, "progress/simulated time [hours]")[2] == (16, 20.0, pytest.approx(20 / 3600))


def test_a_point_has_the_mean_and_the_maximum_of_what_was_merged_since_the_last(tmp_path):
    one, two = update(9.0, (4.0,)), update(9.5, (1.0,))
    records = [commit(10.0, 1, [one], 1, 0.5), commit(10.5, 1, [two], 4, 0.25)]  # both at half the budget
    events = watch(experiment(tmp_path), [*records, commit(20.0, 2, [one], 2, 0.125)])
    assert points(events, "staleness/hop [versions]")[1:] == [(8, 10.0, 1.0), (16, 20.0, 3.0)]
    assert points(events, "staleness/hop, maximum [versions]")[1:] == [(8, 10.0, 1.0), (16, 20.0, 4.0)]
    assert points(events, "staleness/end to end, maximum [versions]")[1:] == [(8, 10.0, 2.0), (16, 20.0, 8.0)]
    assert points(events, "parameter drift/hop, maximum [L2 distance]")[1:] == [(8, 10.0, 0.5), (16, 20.0, 0.25)]
    assert points(events, "parameter drift/end to end, maximum [L2 distance]")[2] == (16, 20.0, 0.75)


def test_utilization_is_the_share_of_the_time_so_far_that_was_computed(tmp_path):
    """Worker 0 computes for 4 of the first 8 s, then for 8 of 16; worker 1 for 6, then for 6."""
    jobs = [update(4.0, ())._replace(compute=(0.0, 4.0)), update(7.0, ())._replace(worker=1, compute=(1.0, 7.0))]
    records = [*jobs, commit(8.0, 1, jobs), update(14.0, ())._replace(compute=(10.0, 14.0)), commit(16.0, 2, jobs)]
    events = watch(experiment(tmp_path), records)
    found = {tag: points(events, tag)[1:] for tag in events.Tags()["scalars"] if tag.startswith("utilization")}
    assert found == {
        "utilization/all workers [%]": [(8, 8.0, 62.5), (16, 16.0, 43.75)],
        "utilization/region us [%]": [(8, 8.0, 50.0), (16, 16.0, 50.0)],
        "utilization/region eu [%]": [(8, 8.0, 75.0), (16, 16.0, 37.5)],
        "utilization/worker 0 in us [%]": [(8, 8.0, 50.0), (16, 16.0, 50.0)],
        "utilization/worker 1 in eu [%]": [(8, 8.0, 75.0), (16, 16.0, 37.5)],
    }


def test_many_workers_have_curves_of_the_busiest_and_the_least_busy_alone(tmp_path):
    workers = tuple(Worker(each, 0, 1.0) for each in range(100))
    cluster = Cluster((Region(0, "us", workers),), workers, 1.0, 0.0)
    given = Experiment(**{**vars(experiment(tmp_path)), "cluster": cluster})
    jobs = [update(8.0, ())._replace(worker=each, compute=(0.0, 0.08 * each)) for each in range(1, 100)]
    events = watch(given, [*jobs, commit(8.0, 1, jobs)])
    found = {tag: points(events, tag)[1][2] for tag in events.Tags()["scalars"] if tag.startswith("utilization")}
    assert found == {
        "utilization/all workers [%]": 49.5,
        "utilization/region us [%]": 49.5,
        "utilization/busiest worker [%]": 99.0,
        "utilization/least busy worker [%]": 0.0,
    }


def test_utilization_ends_with_the_summary_s_which_has_the_jobs_that_did_not_arrive(tmp_path):
    workers = [{"worker": each, "region": each, "compute": 0.25 * each, **REST} for each in range(2)]
    events = watch(experiment(tmp_path), rounds(1), {"workers": workers, "local_steps": 9, "simulated_seconds": 12.0})
    assert points(events, "utilization/worker 1 in eu [%]")[-1] == (9, 12.0, 25.0)


def test_the_layout_names_charts_that_have_curves(tmp_path):
    events = watch(experiment(tmp_path), rounds(1))
    (written,) = events.Tensors("custom_scalars__config__")
    layout = Charts.FromString(written.tensor_proto.string_val[0])
    patterns = [tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag]
    tags = events.Tags()["scalars"]
    empty = [pattern for pattern in patterns if not any(re.match(pattern, tag) for tag in tags)]
    assert empty == ["traffic/.* → "]  # nothing was sent over a link
    assert len(patterns) == 11


def test_traffic_by_link_is_a_table_with_the_most_first(tmp_path):
    sent = [Transfer(5.0, 6.0, 0, 1, 1_500_000, "send"), Transfer(5.0, 6.0, 1, 0, 2_500_000, "pull", 0)]
    events = watch(experiment(tmp_path), [*sent, *rounds(1)])
    (table,) = events.Tensors("traffic/text_summary")
    assert table.tensor_proto.string_val[0].decode().splitlines()[2:] == [
        "| eu → us | pulls | 2.5 MB |",
        "| us → eu | sends | 1.5 MB |",
        "| all of a collective's | all-reduces | 100 B |",
    ]


@pytest.mark.parametrize("summary", [{"finished": True}, {"finished": "interrupted"}])
def test_a_run_that_is_over_has_an_image_of_its_timeline_however_it_ended(tmp_path, summary):
    events = watch(experiment(tmp_path), rounds(1), {**summary, "simulated_seconds": 10.0, "local_steps": 8})
    (image,) = events.Images("timeline of workers")
    assert (image.step, image.wall_time) == (8, 10.0)
    assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > 1000


def test_many_regions_have_no_curves_by_link(tmp_path):
    workers = tuple(Worker(each, each, 1.0) for each in range(7))
    cluster = Cluster(tuple(Region(each, f"r{each}", workers[each : each + 1]) for each in range(7)), workers, 1.0, 0.0)
    given = Experiment(**{**vars(experiment(tmp_path)), "cluster": cluster})
    tags = watch(given, [Transfer(5.0, 6.0, 0, 1, 100, "send"), *rounds(1)]).Tags()["scalars"]
    assert "traffic/sends [MB]" in tags
    assert not [tag for tag in tags if "→" in tag]


def test_a_run_that_does_not_train_has_no_losses(tmp_path):
    events = watch(experiment(tmp_path, real=False), rounds(1, 2, losses=()))
    tags = events.Tags()["scalars"]
    assert not [tag for tag in tags if "loss" in tag]
    assert {"traffic/total [MB]", "progress/simulated time [hours]"} <= set(tags)


def test_no_curve_has_a_name_that_custom_scalars_cannot_draw(tmp_path):
    """It leaves curves out whose names have round brackets, also if they are a user's."""
    records = [*rounds(1, 2), Evaluation(20.0, 2, 16, 16, 160, 2.0, "wiki (en)"), Transfer(5.0, 6.0, 0, 1, 100, "send")]
    tags = watch(experiment(tmp_path), records).Tags()["scalars"]
    assert "loss/wiki [en]" in tags
    assert [tag for tag in tags if "(" in tag or ")" in tag] == []


def test_another_server_s_commits_make_no_points(tmp_path):
    events = watch(experiment(tmp_path), [commit(1.0, 1, [update(1.0, (3.0,))], server="local-0")])
    assert events.Tags()["scalars"] == []


def test_another_set_and_another_model_have_curves_of_their_own(tmp_path):
    records = [Evaluation(0.0, 0, 0, 0, 0, 6.0, "german"), Evaluation(0.0, 0, 0, 0, 0, 7.0, "german", "mean")]
    events = watch(experiment(tmp_path), records)
    assert points(events, "loss/german") == [(0, 0.0, 6.0)]
    assert points(events, "loss/german of mean") == [(0, 0.0, 7.0)]


def test_config_is_a_block_of_code_and_the_use_of_time_a_table(tmp_path):
    workers = [
        {"worker": 0, "region": 0, "compute": 0.5, "transfer": 0.25, "idle": 0.125, "down": 0.125},
        {"worker": 1, "region": 1, "compute": 0.75, "transfer": 0.25, "idle": 0.0, "down": 0.0},
    ]
    events = watch(experiment(tmp_path), rounds(1), {"workers": workers, "local_steps": 8, "simulated_seconds": 10.0})
    (config,) = events.Tensors("config/text_summary")
    assert config.tensor_proto.string_val == [b"```yaml\npolicy:\n  name: diloco\n  outer: {lr: 0.7}\nseed: 1\n```"]
    (time,) = events.Tensors("use of simulated time/text_summary")
    assert (
        b"| us | 1 | 50.0% | 25.0% | 12.5% | 12.5% |\n| eu | 1 | 75.0% | 25.0% | 0.0% | 0.0% |"
        in time.tensor_proto.string_val[0]
    )
    assert (time.step, time.wall_time) == (8, 10.0)


def test_a_very_long_run_has_about_so_many_points_and_each_is_a_mean(tmp_path):
    count = 10 * POINTS
    records = [commit(float(n), n, [update(n, (float(n % 10),))]) for n in range(1, count + 1)]
    events = watch(experiment(tmp_path, 8 * count), records)
    train = points(events, "loss/train")[1:]  # the first is the one at 0
    assert POINTS - 2 <= len(train) <= POINTS + 2
    assert train[-1][0] == 8 * count
    assert all(value == pytest.approx(4.5, abs=0.5) for _, _, value in train[1:-1])


def test_a_curve_has_fewer_points_than_tensorboard_keeps_of_it_and_ends_with_the_last(tmp_path):
    """It keeps 1,000 of a curve, and of more drops any but the last: the one at 0 as well."""
    count = 3 * POINTS + 1
    records = [Evaluation(float(n), n, n, n, n, float(n), "validation") for n in range(count + 1)]
    records += [commit(float(n), n, [update(n, (1.0,))]) for n in range(1, count + 1)]
    watch(experiment(tmp_path, 8 * count), records)
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 1000})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        assert events.Scalars(tag)[0].wall_time == 0.0
        assert events.Scalars(tag)[-1].wall_time == float(count)
        assert len(events.Scalars(tag)) < 1000


def test_of_many_points_some_have_what_adds_up_and_so_has_the_last(tmp_path):
    """Of 402 commits the first 200 have, then every fourth (204, …, 400), and the last."""
    records = [commit(float(n), n, [update(n, (1.0,))]) for n in range(1, 403)]
    events = watch(experiment(tmp_path, 8 * 402), records)
    assert [point[1] for point in points(events, "traffic/total [MB]")] == [*range(201), *range(204, 401, 4), 402]
    assert [point[1] for point in points(events, "loss/train")] == [*range(403)]


def test_a_resumed_run_has_the_same_curves_as_one_that_was_never_interrupted(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    given = {"local_steps": 24}
    expected = watch(experiment(whole, **given), rounds(1, 2, 3))

    first = TensorBoard()
    first.on_start(experiment(cut, **given))
    tell(first, rounds(1, 2))  # it went on for a round after the checkpoint
    first.on_finish({})
    second = TensorBoard()
    second.on_start(experiment(cut, resumed_at=10.0, **given))
    tell(second, rounds(1))
    second.on_resume(10.0)
    tell(second, rounds(2, 3))
    second.on_finish({})
    resumed = curves(cut)
    tags = expected.Tags()["scalars"]
    assert sorted(resumed.Tags()["scalars"]) == sorted(tags)
    assert {tag: points(resumed, tag) for tag in tags} == {tag: points(expected, tag) for tag in tags}
    assert len(list(cut.glob("events.out.tfevents*"))) == 1


def test_a_loss_that_is_no_number_makes_no_point(tmp_path):
    events = watch(experiment(tmp_path), [Evaluation(0.0, 0, 0, 0, 0, math.nan, "validation")])
    assert events.Tags()["scalars"] == []
