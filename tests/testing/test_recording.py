"""The conformance suites find what is wrong: deliberately broken plugins, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from halos.sim.clock import Clock
from halos.testing import QuadraticProblem, tiny_run, two_workers
from halos.testing.conformance import (
    CodecConformance,
    ComputeConformance,
    DataConformance,
    ExecutorConformance,
    InnerOptimizerConformance,
    MergeRuleConformance,
    ModelConformance,
    NetworkConformance,
    PolicyConformance,
    StepsConformance,
    WeightsConformance,
)
from halos.testing.conformance.suite import Suite
from halos.testing.situations import Situation

pytest_plugins = ["halos.testing.fixtures", "pytester"]

ROOT = Path(__file__).parents[2]
BROKEN = str(Path(__file__).parents[1] / "broken_plugins.py")
TWO, EIGHT = Situation(2, "slow"), Situation(8, "free")


class Policies(PolicyConformance):
    plugins = (BROKEN,)


@pytest.mark.parametrize(
    ("name", "test", "arguments", "message"),
    [
        (
            "InPlace",
            "modifies_no_parameters",
            {},
            r"2 workers, slow: parameters were modified in place, those made at .*training",
        ),
        (
            "Weightless",
            "obeys_weights_or_refuses_them",
            {},
            r"2 workers, slow: `weights:` make no difference; it should",
        ),
        ("NoCommit", "spends_the_budget", {}, r"24 local steps trained, 0 committed, 0 dropped; it has forgotten"),
        ("NeverEnds", "spends_the_budget", {}, r"\d+ local steps trained, 0 committed, .* forgotten sim.commit"),
        ("Forgets", "steps_add_up", {}, r"neither committed nor dropped by \d+ s: update 0 of worker 0, there at 2 s;"),
        ("Twice", "steps_add_up", {}, r"2 workers, slow: RuntimeError: update 0 .* committed or dropped before"),
        ("StopsEarly", "spends_the_budget", {}, r"2 committed, 0 dropped; it ended before its budget 24"),
        ("Draws", "is_deterministic", {}, r"run twice, it is not deterministic: record \d+ is .* and .*"),
        ("Remembers", "is_deterministic", {}, r"run twice, its instance keeps something of the run before: record \d+"),
        ("TurnsBack", "commits_are_in_order", {}, r"a commit at -\d+ s comes after one at \d+ s"),
        ("LooksAtValues", "takes_the_same_time_without_training", {}, r"with and without training, the times differ"),
        ("KeepsTensors", "resumes_exactly", {}, r"resumed after event \d+ of \d+: .*broken_plugins\.py:\d+"),
        ("Uphill", "reaches_the_optimum", {"workers": 2}, r"2 workers.*: (still|Diverged)"),
        ("Inattentive", "asks_its_merge_rules_where_workers_begin", {}, r"it steps SGD, and does not ask start_of\(\)"),
        ("Raises", "spends_the_budget", {"situation": EIGHT}, r"8 workers, free: IndexError: eight are too many"),
    ],
)
def test_a_broken_policy_is_found(name: str, test: str, arguments: dict[str, Any], message: str) -> None:
    finds(Policies, name, test, arguments or {"situation": TWO}, message)


@pytest.mark.parametrize("situation", [TWO, EIGHT], ids=str)
def test_a_sound_policy_passes(situation: Situation) -> None:
    suite = Policies()
    for test in ("spends_the_budget", "steps_add_up", "modifies_no_parameters", "is_deterministic"):
        getattr(suite, f"test_{test}")({"name": "Sound"}, situation)


class Timed(Policies):
    def seconds(self, section: dict[str, Any], rounds: int, compute: float, all_reduce: float) -> float:
        return rounds * max(compute, all_reduce)  # as if it overlapped


def test_a_wrong_closed_form_is_found() -> None:
    message = (
        r"policy 'Sound': 2 workers, 6 rounds of 2 s, all-reduces of 2 s: took 24\.0.* s, by the closed form 12\.0"
    )
    finds(Timed, "Sound", "takes_the_time_of_its_closed_form", {"workers": 2, "transfer": 1.0}, message)


class Rules(MergeRuleConformance):
    plugins = (BROKEN,)


class Networks(NetworkConformance):
    plugins = (BROKEN,)


class Allocations(StepsConformance):
    plugins = (BROKEN,)


class Weightings(WeightsConformance):
    plugins = (BROKEN,)


class Computing(ComputeConformance):
    plugins = (BROKEN,)


class Codecs(CodecConformance):
    plugins = (BROKEN,)


class Optimizers(InnerOptimizerConformance):
    plugins = (BROKEN,)


class Models(ModelConformance):
    plugins = (BROKEN,)


class Data(DataConformance):
    plugins = (BROKEN,)


class Executors(ExecutorConformance):
    plugins = (BROKEN,)


ALLOTTED = {"situation": TWO, "policy": "async_local_sgd"}
VECTOR = {"shapes": "a vector"}
RUN = {"workers": 2, "policy": "diloco", "optimizer": "sgd"}


@pytest.mark.parametrize(
    ("suite", "name", "test", "arguments", "message"),
    [
        (Rules, "WritesState", "modifies_nothing", {}, r"the states before steps \[0, 1, 2, 3, 4, 5\] were modified"),
        (Rules, "WritesParams", "modifies_nothing", {}, r"modified in place, those made at .*rules\.py:\d+"),
        (Rules, "Shares", "states_are_independent", {}, r"two states of one rule are not independent"),
        (Rules, "Shares", "is_a_function_of_its_arguments", {}, r"it remembers earlier steps"),
        (Rules, "FromValues", "takes_hollow_parameters", {}, r"hollow parameters: AssertionError: no values"),
        (Rules, "FromValues", "takes_parts", {}, r"merging a part is not a part of merging the whole"),
        (Rules, "Ascends", "reaches_the_optimum", {}, r"after 2000 steps it is still .* of the way"),
        (Rules, "Drifts", "a_fresh_state_rests", {}, r"a pseudo-gradient of zero moves the parameters"),
        (Networks, "BackInTime", "times_are_seconds", {}, r"transfer 0->0 of 0 bytes at 0 s is -0\.5, not a time"),
        (Networks, "Bulk", "more_bytes_take_no_less_time", {}, r"all-reduce among 2 of .*: less for more"),
        (Networks, "Alone", "one_worker_has_nobody_to_reduce_with", {}, r"among one worker takes 1\.0 s"),
        (
            Networks,
            "Congested",
            "is_a_function_of_its_arguments",
            {},
            r"transfer 0->0 .* is 1\.0 and then, asked again, ",
        ),
        (Allocations, "Halves", "allots_whole_steps_and_does_so_again", ALLOTTED, r"2\.0 local steps|float"),
        (Allocations, "Alternates", "allots_whole_steps_and_does_so_again", ALLOTTED, r"asked twice in a row, it says"),
        (Weightings, "Negative", "weights_of_workers_are_positive", {}, r"worker 1 counts -0\.5; it must be positive"),
        (Weightings, "Doubles", "over_equal_steps_they_are_one", {}, r"1 steps of 1 on average count 2\.0, not 1"),
        (
            Weightings,
            "Doubles",
            "runs_of_equal_steps_do_not_notice_them",
            {"workers": 2, "policy": "diloco"},
            r"weights, r",
        ),
        (
            Computing,
            "Tires",
            "is_a_function_of_its_arguments",
            {},
            r"job 0 of worker 0 .* takes 1\.0 and then, asked again",
        ),
        (Computing, "Instant", "times_are_seconds", {}, r"takes 0\.0, not a time in seconds"),
        (Computing, "Instant", "more_steps_take_more_time", {}, r"not more for more"),
        (Computing, "Endless", "times_are_seconds", {}, r"takes inf, not a time in seconds"),
        (Codecs, "Lies", "bytes_can_hold_what_arrives", {}, r"weighs 2 byte\(s\), but \d+ different ones have arrived"),
        (
            Codecs,
            "WeighsValues",
            "hollow_payloads_stay_hollow_and_weigh_the_same",
            {},
            r"weigh \(4920, 0, 4920\) bytes",
        ),
        (Codecs, "Overwrites", "modifies_nothing", {}, r"payloads were modified in place, those made at .*codecs\.py"),
        (Codecs, "Feeds", "is_a_function_of_the_payload", {}, r"arrives otherwise the second time"),
        (
            Codecs,
            "Doubled",
            "what_arrives_is_of_the_same_shape_and_near",
            {"part": "a part"},
            r"a part: the error is 2 of",
        ),
        (
            Optimizers,
            "Grows",
            "its_state_is_what_it_says_and_stays_so",
            VECTOR,
            r"a vector: its state was .*, and",
        ),
        (Optimizers, "Hides", "is_a_function_of_its_arguments", VECTOR, r"it remembers parameters or gradients of ear"),
        (Optimizers, "Hides", "goes_on_from_a_state_that_was_saved", {}, r"it keeps something that is not in its sta"),
        (Optimizers, "Leaps", "steps_of_no_length_change_no_parameter", VECTOR, r"a vector: a rate of 0 moves parame"),
        (Optimizers, "Climbs", "goes_down", VECTOR, r"theta is 1\.\d+ away from the optimum, at first it was 1"),
        (Optimizers, "Mixes", "rows_are_stepped_as_if_alone", VECTOR, r"a vector: rows depend on how many there are"),
        (Models, "Misshapen", "builds_what_it_says", {}, r"says \[3\] of theta, but build\(\) makes it \[2\]"),
        (
            Models,
            "Infinite",
            "loss_is_a_finite_number_with_a_gradient_everywhere",
            {},
            r"no finite gradient reaches theta",
        ),
        (
            Models,
            "Seedless",
            "weights_follow_from_the_seed_alone",
            {},
            r"two modules of one seed have different weights",
        ),
        (
            Models,
            "Flat",
            "loss_is_a_finite_number_with_a_gradient_everywhere",
            {},
            r"its loss does not depend on unused, which would only be decayed",
        ),
        (Models, "Noisy", "loss_is_a_finite_number_with_a_gradient_everywhere", {}, r"the loss of one batch is \("),
        *(
            (Models, name, test, {}, r"a job comes out otherwise .*: it keeps something that is neither parameter")
            for name in ("Counts", "Overlooked", "Slides")
            for test in ("a_job_does_not_depend_on_those_of_other_workers", "goes_on_from_what_is_saved")
        ),
        (
            Data,
            "Unknown",
            "samples_are_tokens_it_knows",
            {},
            r"its tokens go from \d+ to \d+, its vocabulary from 0 to 31",
        ),
        (Data, "Reshuffled", "is_the_same_each_time_it_is_opened", {}, r"opened twice, its samples differ"),
        (
            Executors,
            "InOrder",
            "when_a_result_is_asked_for_does_not_matter",
            {},
            r"under way together come out otherwise",
        ),
        (Executors, "Rounded", "runs_are_those_of_inline", RUN, r"the final model is .* away from inline's"),
        (
            Executors,
            "Reuses",
            "modifies_nothing",
            {},
            r"parameters were modified in place, those made at .*trainer\.py",
        ),
    ],
)
def test_a_broken_component_is_found(
    suite: type[Suite], name: str, test: str, arguments: dict[str, Any], message: str
) -> None:
    section = {"bandwidth_gbps": 1.0} if suite is Networks else {}
    if test == "takes_parts":
        suite = type("Elementwise", (suite,), {"elementwise": lambda self, section: True})
    finds(suite, name, test, arguments, message, **section)


def finds(suite: type[Suite], name: str, test: str, arguments: dict[str, Any], message: str, **options: Any) -> None:
    """That test of the suite fails, with a message that names the plugin and what is wrong."""
    with pytest.raises(AssertionError) as caught:
        getattr(suite(), f"test_{test}")({"name": name, **options}, **arguments)
    said = str(caught.value).split("\nassert ")[0]
    assert said.startswith(f"{suite.kind} {name!r}")
    assert caught.match(message)


# In three lines


def test_three_lines_test_a_plugin_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(
        mine="""
        from dataclasses import dataclass
        from halos import hookimpl
        from halos.rules.weights import Uniform

        @dataclass
        class Mine(Uniform):
            pass

        @hookimpl
        def register_contribution_weights(register):
            register("mine", Mine)
        """,
        test_mine="""
        from halos.testing.conformance import WeightsConformance

        class TestMine(WeightsConformance):
            plugins = ["mine.py"]
        """,
    )
    result = pytester.runpytest_subprocess("-v", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["*TestMine::test_over_equal_steps_they_are_one?mine? PASSED*"])


def test_a_suite_of_nothing_is_an_error() -> None:
    class Nothing(NetworkConformance):
        plugins = ("halos.testing.situations",)  # brings a compute model

    with pytest.raises(Exception, match=r"Nothing: no network model comes with halos\.testing\.situations"):
        Nothing.subjects()


def test_without_plugins_a_suite_is_of_all_there_is() -> None:
    assert {each["name"] for each in MergeRuleConformance.subjects()} >= {"sgd", "nesterov", "delayed_nesterov", "adam"}
    assert [each["name"] for each in Weightings.subjects()] == ["Doubles", "Negative"]


def test_a_section_that_is_needed_is_asked_for() -> None:
    with pytest.raises(
        AssertionError, match=r"data source 'tokens'.*path: missing; .* \(give the suite `sections`; it tries"
    ):
        DataConformance().source({"name": "tokens"})


# Fixtures


def test_fixtures(tiny_run: Any, clock: Clock, quadratic: QuadraticProblem) -> None:
    assert clock.now == 0.0
    assert tiny_run(budget={"local_steps": 4}).thetas == pytest.approx([1 - 0.9**2])  # two workers of two steps each
    run = tiny_run(**quadratic.sections(steps={"base": 3}, budget={"local_steps": 6}))
    theta = run.simulation.params
    # Rates 0.1, 0.09 and 0.08: what is left after three steps.
    assert theta.flat.tolist() == pytest.approx([1 - 0.9**3, 1 - 0.91**3, 1 - 0.92**3], abs=1e-15)
    assert theta.flat.tolist() == pytest.approx(quadratic.after(3), abs=1e-15)
    left = (0.9**6 + 0.91**6 + 0.92**6) ** 0.5 / 3**0.5
    assert quadratic.distance(theta) == pytest.approx(left)


def test_two_workers_leave_what_they_are_said_to() -> None:
    run = tiny_run(**two_workers(rounds=1, policy={"name": "diloco", "outer": {"name": "sgd", "lr": 1.0}}))
    assert run.thetas == pytest.approx([1 - (0.81 + 0.9) / 2], abs=1e-15)
    assert [type(each).__name__ for each in run.heard[1:5]] == ["Update", "Update", "Transfer", "Commit"]


def test_plugins_of_a_run_are_named_as_in_a_config() -> None:
    assert tiny_run(plugins=[BROKEN], policy={"name": "Sound"}).experiment.policy == "Sound"
