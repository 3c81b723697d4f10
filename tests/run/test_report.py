"""The closing table."""

import io
import re

import pytest
from rich.console import Console

from halos.run.report import show

WORKERS = [
    {"worker": 0, "region": 0, "compute": 0.5, "transfer": 0.25, "idle": 0.25, "local_steps": 8},
    {"worker": 1, "region": 0, "compute": 1.0, "transfer": 0.0, "idle": 0.0, "local_steps": 16},
    {"worker": 2, "region": 1, "compute": 0.0, "transfer": 0.0, "idle": 1.0, "local_steps": 0},
]
SUMMARY = {
    "name": "quickstart",
    "policy": "halos",
    "seed": 1,
    "simulated_seconds": 4096.0,
    "wall_seconds": 73.2,
    "local_steps": 4104,
    "tokens": 16809984,
    "commits": 129,
    "updates": 1049,
    "final_train_loss": 3.41234,
    "final_validation_loss": 3.3876,
    "bytes": {"0->1": 3_000_000, "1->0": 2_000_000, "all_reduce": 1_000_000},
    "workers": WORKERS,
    "steps": {"trained": 4392, "committed": 4104, "dropped": 0, "in_flight": 288},
    "parameters": 131_072,
    "staleness": {"hop": {"mean": 3.25, "max": 9}, "end_to_end": {"mean": 5.5, "max": 12}},
    "drift": {"hop": {"mean": 5.7, "max": 9.21}, "end_to_end": {"mean": 16.3, "max": 120.5}},
    "goodput": 0.625,
    "policy_report": {"unsent_share": 0.28125},
    "finished": True,
}


def printed(folder, width=80, regions=(), **changes):
    out = io.StringIO()
    show({**SUMMARY, **changes}, folder, regions, Console(file=out, width=width, highlight=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_what_the_run_came_to(tmp_path, width):
    text = printed(tmp_path, width)
    for line in (
        "quickstart  halos  finished",
        "simulated time   1 h 08 min",
        "wall time        1 min 13 s",
        "parameters       131,072",
        "local steps      4,392 trained, 4,104 committed, 288 in flight",
        "tokens           16,809,984",
        "train loss       3.4123",
        "validation loss  3.3876",
        "commits          129 of the global model, from 1,049 updates",
        "staleness        hop mean 3.25, max 9; end to end mean 5.5, max 12 versions",
        "drift            hop mean 5.7, max 9.21; end to end mean 16.3, max 120.5",
        "goodput          62.5% of the workers' time computed what was committed",
        "policy           unsent share 0.2812",
        "bytes sent       6.0 MB over 3 links, most over 0->1: 3.0 MB",
    ):
        assert line in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= width
    assert text.isascii()


def test_regions_have_the_mean_shares_of_their_workers(tmp_path):
    rows = {
        line.split()[0]: line.split()[1:]
        for line in printed(tmp_path, regions=["us", "eu"]).splitlines()
        if "%" in line
    }
    assert rows["us"] == ["2", "75.0%", "12.5%", "12.5%", 22 * "#" + 4 * "=" + 4 * "."]  # up to 22.5 and 26.25 of 30
    assert rows["eu"] == ["1", "0.0%", "0.0%", "100.0%", 30 * "."]
    assert rows["all"][:4] == ["3", "50.0%", "8.3%", "41.7%"]


def test_what_faults_have_taken_is_shown_if_there_were_any(tmp_path):
    assert " down" not in printed(tmp_path) and " lost" not in printed(tmp_path) and "x down" not in printed(tmp_path)
    workers = [{**WORKERS[0], "idle": 0.0, "down": 0.25}, {**WORKERS[1], "down": 0.0}]
    steps = {**SUMMARY["steps"], "lost": 40}
    text = printed(tmp_path, workers=workers, steps=steps, lost={"jobs": 5, "messages": 2}, goodput=0.625)
    assert "288 in flight, 40 lost" in " ".join(text.split())
    assert "lost             5 jobs, 2 messages" in text
    row = next(line for line in text.splitlines() if "%" in line and "region" in line)
    assert row.split() == ["region", "0", "2", "75.0%", "12.5%", "0.0%", "12.5%", 15 * "#" + 3 * "=" + 2 * "x"]


@pytest.mark.parametrize(("skipped", "shown"), [(1234, True), (0, True), (None, False)])
def test_steps_that_fp16_skipped_are_told_in_its_runs_alone(tmp_path, skipped, shown):
    text = printed(tmp_path, skipped_steps=skipped)
    assert (f"skipped steps    {skipped or 0:,}, by fp16's loss scaling" in text) is shown


def test_the_marks_of_the_bars_are_named_in_the_heads(tmp_path):
    workers = [{**WORKERS[0], "idle": 0.125, "down": 0.125}]
    head = next(line for line in printed(tmp_path, workers=workers).splitlines() if line.startswith("region"))
    assert re.split(" {2,}", head.strip()) == [
        "region", "workers", "# compute", "= transfer", ". idle", "x down", "of time",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_widest_table_fits(tmp_path, width):
    workers = [{**WORKERS[0], "compute": 1.0, "idle": 1.0, "down": 1.0, "region": region} for region in range(12)]
    text = printed(tmp_path, width, ["a-region-with-a-very-long-name-1"] * 12, workers=workers)
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= width
    assert text.count("100.0%") == 3 * 13
    assert "…" not in text


def test_every_evaluation_set_has_a_row_with_what_else_was_measured(tmp_path):
    text = printed(
        tmp_path,
        final_losses={"validation": 3.3876, "german": 4.5},
        final_metrics={"german": {"perplexity": 90.0171, "bits_per_byte": None, "accuracy": 0.25}},
        final_losses_of={"mean": {"validation": 3.5, "german": 4.75}},
    )
    assert "loss of mean     validation 3.5000, german 4.7500 " in text
    assert "validation loss  3.3876 " in text
    assert "german loss      4.5000; perplexity 90.02, accuracy 0.25" in text


def test_what_is_not_known_is_no_zero(tmp_path):
    unknown = {"mean": None, "max": None}
    fresh = {"hop": {"mean": 0.0, "max": 0}, "end_to_end": unknown}
    text = printed(tmp_path, drift={"hop": unknown, "end_to_end": unknown}, staleness=fresh)
    assert "drift            not known" in text
    assert "staleness        hop mean 0, max 0 versions" in text


def test_what_a_policy_says_is_one_line_and_not_endless(tmp_path):
    assert "policy  " not in printed(tmp_path, policy_report={}) + printed(tmp_path, policy_report=None)
    said = {"late_answers": 12_000, "distance": 0.000123456, "rest": None, "note": "[bold]"}
    text = printed(tmp_path, policy_report=said)
    assert "policy           late answers 12,000, distance 0.0001235, rest -, note [bold]" in text
    text = printed(tmp_path, policy_report={f"worker_{each}": each for each in range(1000)})
    assert "worker 0 0, worker 1 1" in text and "all of it in summary.json" in " ".join(text.split())
    assert len(text.splitlines()) < 40


def test_a_trace_that_was_cut_is_said_to_be(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text('{"displayTimeUnit": "ms", "otherData": {"cut_at_seconds": null}, "traceEvents": [\n]}')
    assert "holds the first" not in printed(tmp_path)
    path.write_text('{"displayTimeUnit": "ms", "otherData": {"cut_at_seconds": 754.3}, "traceEvents": [\n]}')
    assert "holds the first 12 min 34 s of simulated time" in printed(tmp_path)


def test_many_regions_share_a_row(tmp_path):
    workers = [{**WORKERS[0], "region": region} for region in range(30)]
    text = printed(tmp_path, workers=workers)
    assert "region 10 " in text
    assert "region 11 " not in text
    assert "19 more regions" in text


def test_long_names_do_not_break_the_table(tmp_path):
    text = printed(tmp_path, regions=["a-region-with-a-very-long-name-1", "[bold]eu"])
    assert "a-region-with-a-ve.." in text
    assert "[bold]eu" in text


def test_a_timing_run_has_no_loss_lines(tmp_path):
    assert " loss " not in printed(tmp_path, final_train_loss=None, final_validation_loss=None)


def test_a_run_that_failed_says_so(tmp_path):
    assert "quickstart  halos  failed: Diverged" in printed(tmp_path, finished="failed: Diverged")


def test_it_points_to_what_is_there_and_commands_are_whole(tmp_path):
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    assert "tensorboard" not in printed(folder)
    for name in ("events.out.tfevents.1", "trace.json", "evaluations.jsonl"):
        (folder / name).write_text("x")
    lines = printed(folder).splitlines()
    assert f"curves      tensorboard --logdir {folder}" in lines
    assert f"timeline    {folder / 'trace.json'} (open it at https://ui.perfetto.dev)" in lines
    assert f"losses      {folder / 'evaluations.jsonl'}" in lines


def test_what_a_broken_off_run_does_not_know_is_left_open(tmp_path):
    out = io.StringIO()
    show({"name": "x", "finished": "interrupted"}, tmp_path, console=Console(file=out, width=80))
    assert "interrupted" in out.getvalue()
