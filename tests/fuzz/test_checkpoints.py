"""Whatever checkpoints and run folders hold: a run that goes on, or one line, and the folder as it was."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halos import training as executors
from halos.config.layers import merge
from halos.config.yaml_text import Section, to_yaml
from halos.training.inline import Inline
from tests.no_files import endless, folder, link_to_itself, link_to_nowhere, not_for_us, pipe
from tests.outcome import QUIET, Outcome, contents, ended, examples, here

CHECKPOINTED: Section = merge(
    QUIET,
    {
        "train": {"optimizer": {"name": "adamw", "lr": 0.1}},
        "budget": {"local_steps": 12},
        "evaluate": {"every_local_steps": 4},
        "checkpoint": {"every_local_steps": 4, "keep": 2},
        "out": "run",
    },
)


@lru_cache
def files(steps: int = 12) -> dict[str, bytes]:
    """A finished run of so many local steps, with its last two checkpoints."""
    with here():
        Path("c.yaml").write_text(to_yaml(CHECKPOINTED), encoding="utf-8")
        outcome = ended("c.yaml", f"budget.local_steps={steps}")
        assert outcome.code == 0 and outcome.well, outcome
        return {str(path): path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


@contextmanager
def finished() -> Iterator[Path]:
    """The folder of that run, in an empty working directory."""
    with here():
        for name, content in files().items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)
        yield Path("run")


def newest() -> Path:
    return max(Path("run/checkpoints").iterdir())


def stored() -> dict[str, Any]:
    """What the newest checkpoint holds."""
    (name,) = {max(each for each in files() if "checkpoints" in each)}
    content: dict[str, Any] = torch.load(BytesIO(files()[name]), weights_only=True)
    return content


def saved(value: Any) -> bytes:
    stream = BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def put(content: bytes, events: int = 99) -> None:
    """The only checkpoint: with any content, under the name it would have."""
    for path in Path("run/checkpoints").iterdir():
        path.unlink()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    Path(f"run/checkpoints/events-{events:012d}-{digest}.pt").write_bytes(content)


def resumed(*changes: str) -> Outcome:
    """`--resume run`; if it is refused, nothing has changed."""
    before = contents(Path())
    outcome = ended("--resume", "run", *changes)
    assert outcome.code != 2 or contents(Path()) == before, "changed"
    return outcome


def settled(outcome: Outcome) -> bool:
    """Refused, or a run that ended."""
    return outcome.refused or (outcome.code == 0 and outcome.well)


def test_the_run_as_it_is_goes_on_and_is_what_it_was() -> None:
    with finished() as run:
        before = contents(run)
        outcome = resumed()
        assert outcome.code == 0 and outcome.well, outcome
        after = contents(run)
        same = [*RECORDS, "config.yaml", "model.pt"]
        assert {name: after[name] for name in same} == {name: before[name] for name in same}


# Damaged files


@examples(14)
@given(st.data())
def test_a_checkpoint_with_any_byte_changed_or_cut_off_is_not_used(data: st.DataObject) -> None:
    with finished() as run:
        path = newest()
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= data.draw(st.integers(1, 255))
        else:
            del content[at:]
        path.write_bytes(content)
        assert max(run.joinpath("checkpoints").iterdir()) == path
        outcome = resumed()
        assert outcome.code == 0, outcome  # from the one before
        for other in run.joinpath("checkpoints").iterdir():
            if other != path:
                other.unlink()
        path.write_bytes(content)
        outcome = resumed()
        assert outcome.refused and "is damaged" in outcome.err, outcome


# Hostile ones: the digest is right, the content is not

BOUNDARY = [0, -1, 1, 2, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400, 0.0, -1.5, 1e308, math.nan, math.inf, -math.inf]
TENSORS = [
    torch.zeros(2),
    torch.zeros(1),
    torch.zeros(0),
    torch.zeros(2, 2),
    torch.tensor(1.0),
    torch.zeros(2, dtype=torch.float64),
    torch.zeros(2, dtype=torch.int64),
    torch.zeros(2, dtype=torch.bool),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2, device="meta"),
    torch.zeros(2).to_sparse(),
    torch.zeros(1).expand(2),
    torch.full((2,), math.nan),
    torch.zeros(2, requires_grad=True),
    torch.nn.Parameter(torch.zeros(2)),
]
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(BOUNDARY),
        st.sampled_from(TENSORS),
        st.none(),
        st.booleans(),
        st.binary(max_size=3),
        st.text(max_size=5),
        st.sampled_from(["${seed}", "${", "a\nb", "\x00", "../..", "/", "x" * 5000]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=5,
)
Place = tuple[Any, ...]


def places(value: Any, before: Place = ()) -> Iterator[Place]:
    """Every key and position in what a checkpoint holds."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*before, key)
            yield from places(inner, (*before, key))


@lru_cache
def by_part() -> dict[str, list[Place]]:
    """These places by the part of a checkpoint they are in: a configuration has more than all others together."""
    parts: dict[str, list[Place]] = {}
    for place in places(stored()):
        parts.setdefault(str(place[0]), []).append(place)
    return parts


PARTS = ["format", "config", "versions", "data", "events", "time", "timeline", "numbers", "params", "executor"]
PARTS += ["observers", "wall_seconds"]


@examples(50)
@given(st.data())
def test_any_value_anywhere_in_a_checkpoint(data: st.DataObject) -> None:
    content = stored()
    assert set(content) == set(PARTS)
    for _ in range(data.draw(st.sampled_from([1, 1, 1, 2]))):
        place = data.draw(st.sampled_from(by_part()[data.draw(st.sampled_from(PARTS))]))
        holder: Any = content
        try:
            for key in place[:-1]:
                holder = holder[key]
            what = data.draw(st.sampled_from(["replaced", "replaced", "removed", "beside"]))
            if what == "replaced":
                holder[place[-1]] = data.draw(VALUES)
            elif what == "removed":
                del holder[place[-1]]
            elif isinstance(holder, dict):
                holder[data.draw(st.one_of(st.text(max_size=3), st.integers(-1, 40)))] = data.draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # gone already
    with finished():
        put(saved(content))
        outcome = resumed("observers.progress=false", "budget.local_steps=24")
        assert settled(outcome) or (outcome.well and outcome.code == 1), outcome  # or diverged


@examples(14)
@given(st.data())
def test_numbers_that_are_too_few_too_many_or_others(data: st.DataObject) -> None:
    content = stored()
    numbers = content["numbers"].tolist()
    at = data.draw(st.integers(0, len(numbers)))
    some = data.draw(st.lists(st.one_of(st.sampled_from(BOUNDARY[:8] + BOUNDARY[9:]), st.floats(-3, 20)), max_size=3))
    content["numbers"] = torch.tensor([*numbers[:at], *some, *numbers[at + data.draw(st.integers(0, 3)) :]]).double()
    with finished():
        put(saved(content))
        assert settled(outcome := resumed()), outcome


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def doubling() -> Any:
    value: Any = []
    for _ in range(60):
        value = [value, value]
    return value


def deep() -> Any:
    value: Any = []
    for _ in range(300):
        value = [value]
    return value


@pytest.mark.parametrize("part", ["config", "versions", "data", "timeline", "numbers", "params", "executor"])
@pytest.mark.parametrize("make", [cyclic, doubling, deep])
def test_lists_that_hold_themselves_or_far_too_much(make: Callable[[], Any], part: str) -> None:
    content = stored()
    content[part] = {**content[part], "policy": make()} if isinstance(content[part], dict) else make()
    with finished():
        put(saved(content))
        assert settled(outcome := resumed()), outcome


class Malicious:
    """Unpickled without care, makes a folder `made`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


@pytest.mark.parametrize("part", PARTS)
def test_code_in_a_checkpoint_is_not_executed(part: str) -> None:
    with finished():
        for content in (saved({**stored(), part: Malicious()}), pickle.dumps({**stored(), part: Malicious()})):
            put(content)
            assert resumed().refused
            assert not Path("made").exists()
        pickle.loads(pickle.dumps(Malicious()))
        assert Path("made").exists(), "or this test could not fail"


def changed(part: str, change: Callable[[Any], Any]) -> bytes:
    return saved({**stored(), part: change(stored()[part])})


def of_another_size(tensors: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    return {serial: torch.zeros(3) for serial in tensors}


def lacking(key: Any) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
    return lambda value: {each: one for each, one in value.items() if each != key}


def workers(states: dict[str, Any]) -> dict[str, Any]:
    """What the executor of these workers saves."""
    return {"skipped": 0, "workers": states}


def holding(**more: Any) -> Callable[[dict[Any, Any]], dict[Any, Any]]:
    return lambda value: {**value, **more}


@pytest.mark.parametrize(
    ("part", "change", "why"),
    [
        ("config", lambda _: {}, "its checkpoint's configuration does not say where it is"),
        ("config", holding(name=3), "its checkpoint's configuration does not say where it is"),
        ("config", holding(out=3), "its checkpoint's configuration does not say where it is"),
        ("config", holding(plugins=3), "plugins: 3 is not a list of files or modules"),
        ("config", lacking("cluster"), "cluster"),
        ("timeline", holding(moments=-1), "more numbers out of parameters than before"),
        ("timeline", holding(moments=10**6), "more numbers out of parameters than before"),
        (
            "timeline",
            lambda counts: counts | {"moments": counts["moments"] - 1},
            "by 6 simulated seconds its committed, events, ",
        ),
        ("time", lambda time: time + 1.0, "by 7 simulated seconds its time differ"),
        ("time", lambda _: math.nan, "its parts are not what they should be"),
        ("timeline", lacking("events"), "simulated seconds its events differ"),
        ("timeline", holding(more=1), "simulated seconds its more differ"),
        ("versions", lambda _: {}, "its parts are not what they should be"),
        ("numbers", lambda numbers: numbers[:-1], "more numbers out of parameters than before"),
        ("numbers", lambda numbers: torch.cat([numbers, numbers]), "fewer numbers out of parameters than before"),
        ("numbers", lambda numbers: -numbers, "where the checkpoint should say how many"),
        ("params", lambda _: {}, "sets of parameters are in use that were not"),
        ("params", of_another_size, "its checkpoint holds 3 numbers where there are 2 parameters"),
        ("executor", lambda _: {}, "the executor cannot go on from what it saved: KeyError: 'skipped'"),
        (
            "executor",
            lambda _: workers({"0": {}}),
            "the executor cannot go on from what it saved: KeyError: 'optimizer'",
        ),
        ("executor", lambda _: workers({"first": {}}), "the executor cannot go on from what it saved: ValueError"),
        (
            "executor",
            lambda one: workers({"0": {**one["workers"]["0"], "kept": {"mean": torch.zeros(2)}}}),
            "the executor cannot go on from what it saved: ValueError: mean is no buffer",
        ),
    ],
)
def test_what_does_not_fit_the_run_is_said(part: str, change: Callable[[Any], Any], why: str) -> None:
    with finished():
        put(changed(part, change))
        outcome = resumed()
        assert outcome.refused and why in outcome.err, outcome


def moments(**changes: Any) -> Callable[[Any], Any]:
    """The first worker's optimizer with other moments; None: without."""

    def change(executor: Any) -> Any:
        state = executor["workers"]["0"]["optimizer"]
        state.update(changes)
        for name in [name for name, value in state.items() if value is None]:
            del state[name]
        return executor

    return change


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp_avg": torch.zeros(1)}, "exp_avg is no vector of 2"),
        ({"exp_avg": torch.zeros(3)}, "exp_avg is no vector of 2"),
        ({"exp_avg": torch.zeros(2).to_sparse()}, "exp_avg is no vector of 2"),
        ({"exp_avg": torch.zeros(2, device="meta")}, "the executor cannot go on from what it saved"),
        ({"exp_avg_sq": "text"}, "exp_avg_sq is no vector of 2"),
        ({"step": torch.zeros(2)}, "step is no vector of 1"),
        ({"exp_avg_sq": None}, "step, exp_avg of another optimizer"),
        ({"more": torch.zeros(2)}, "step, exp_avg, exp_avg_sq, more of another optimizer"),
    ],
)
def test_an_optimizer_goes_on_from_nothing_but_its_own_moments(changes: dict[str, Any], why: str) -> None:
    with finished():
        put(changed("executor", moments(**changes)))
        outcome = resumed("budget.local_steps=24")
        assert outcome.refused and why in outcome.err, outcome


# Run folders


def read_only(path: Path) -> None:
    not_for_us(path, 0o444)


NO_FILES = [folder, pipe, endless, link_to_nowhere, link_to_itself, read_only]
RECORDS = ["updates.jsonl", "transfers.jsonl", "commits.jsonl", "evaluations.jsonl"]
WRITTEN = [*RECORDS, "config.yaml", "summary.json", "model.pt", "trace.json", "results.pt", "events.out.tfevents.1"]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *(("commits.jsonl", make) for make in NO_FILES),
        *((name, make) for name in WRITTEN for make in (folder, read_only)),
    ],
)
def test_what_it_writes_must_be_files(name: str, make: Callable[[Path], None]) -> None:
    with finished() as run:
        run.joinpath(name).unlink(missing_ok=True)
        make(run / name)
        outcome = resumed()
        why = "cannot be written to" if make is read_only else "is no file"
        assert outcome.refused and outcome.err == f"error: out: run cannot be the run's folder: {name} {why}\n"


@pytest.mark.parametrize("make", NO_FILES[:-1])
def test_a_checkpoint_that_is_no_file_is_not_used(make: Callable[[Path], None]) -> None:
    with finished():
        path = newest()
        path.unlink()
        make(path)
        assert resumed().code == 0  # from the one before


@examples(18)
@given(st.data())
def test_damaged_records(data: st.DataObject) -> None:
    with finished() as run:
        for name in data.draw(st.sets(st.sampled_from(RECORDS), min_size=1)):
            content = bytearray(run.joinpath(name).read_bytes())
            at = data.draw(st.integers(0, len(content)))
            how = data.draw(st.sampled_from(["cut off", "deleted", "overwritten", "put in", "appended"]))
            if how == "deleted":
                run.joinpath(name).unlink()
                continue
            if how == "cut off":
                del content[at:]
            elif how == "overwritten" and at < len(content):
                content[at] ^= data.draw(st.integers(1, 255))
            else:
                at = len(content) if how == "appended" else at
                content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
            run.joinpath(name).write_bytes(content)
        outcome = resumed()
        assert settled(outcome), outcome
        if outcome.code == 0:
            assert all(run.joinpath(name).read_bytes() == files()[f"run/{name}"] for name in RECORDS)
        else:
            assert "is not what this run wrote" in outcome.err


@pytest.mark.parametrize("content", [None, b"", b"seed: [", b"policy: {name: nowhere}\n", bytes(range(256))])
@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "events.out.tfevents.1"])
def test_what_it_writes_anew_may_be_anything(name: str, content: bytes | None) -> None:
    with finished() as run:
        run.joinpath(name).unlink(missing_ok=True)
        if content is not None:
            run.joinpath(name).write_bytes(content)
        outcome = resumed("observers.tensorboard=true" if "tfevents" in name else "seed=1234")
        assert outcome.code == 0, outcome
        assert run.joinpath("summary.json").read_text(encoding="utf-8").startswith('{\n  "name": "run"')
        assert "local_steps: 12" in run.joinpath("config.yaml").read_text(encoding="utf-8")
        assert name != "events.out.tfevents.1" or not run.joinpath(name).exists()


def test_checkpoints_of_another_run_are_refused() -> None:
    with finished():
        Path("c.yaml").write_text(to_yaml(CHECKPOINTED), encoding="utf-8")
        assert ended("c.yaml", "seed=1", "model.noise=1.0", "out=other").code == 0
        shutil.rmtree("run/checkpoints")
        shutil.copytree("other/checkpoints", "run/checkpoints")
        outcome = resumed()
        assert outcome.refused and "is not what this run wrote" in outcome.err


def as_a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("a file")


def emptied(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def with_a_file_for_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("a file")


def with_a_pipe_for_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    os.mkfifo(run / "checkpoints")


def with_strange_checkpoints(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (run / f"checkpoints/events-{'٣' * 12}-{'0' * 32}.pt").touch()
    (run / f"checkpoints/events-{'9' * 200}-{'0' * 32}.pt").touch()


def closed(run: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    run.chmod(0o555)


NO_RUN = "--resume: run is no run folder"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (as_a_file, f"{NO_RUN}\n"),
        (emptied, f"{NO_RUN}: there are no checkpoints in it, nor a config.yaml\n"),
        (without_checkpoints, "run/checkpoints holds no checkpoint: none was asked for"),
        (with_a_file_for_checkpoints, "run/checkpoints cannot be read: Not a directory\n"),
        (with_a_pipe_for_checkpoints, "run/checkpoints cannot be read: Not a directory\n"),
        (with_strange_checkpoints, "run/checkpoints holds no intact checkpoint: "),
        (closed, "out: run cannot be the run's folder: it cannot be written to\n"),
    ],
)
def test_what_is_no_run_folder_is_said(change: Callable[[Path], None], why: str) -> None:
    with finished() as run:
        change(run)
        outcome = resumed()
        assert outcome.refused and outcome.err.startswith(f"error: {why}"), outcome


@pytest.mark.parametrize("name", ["", ".", "/", "/tmp", "nowhere", "x" * 5000, "a\0b", "\n", "~nobody-of-that-name"])
def test_nor_is_what_has_no_such_name(name: str) -> None:
    with here():
        outcome = ended("--resume", name)
        assert outcome.refused and outcome.err.startswith("error: --resume: "), outcome


@pytest.mark.parametrize("change", ["plugins=3", "plugins=[3]", "name=3", "out=null", "checkpoint=null", "out="])
def test_changes_that_are_none(change: str) -> None:
    with finished():
        assert settled(outcome := resumed(change)), outcome


# Several at once


def both_at_once(commands: list[list[str]]) -> list[int]:
    """Exit codes of commands, each in a copy of this process; who begins to train waits until nobody else does."""
    train = Inline.result

    def patient(self: Inline, job: executors.Job) -> executors.Outcome:
        until = monotonic() + 60
        while not Path("go").exists() and monotonic() < until:
            sleep(0.01)
        return train(self, job)

    children = []
    for command in commands:
        child = os.fork()
        if not child:
            code = 99
            try:
                Inline.result = patient  # type: ignore[method-assign]
                code = ended(*command).code
            finally:
                os._exit(code)
        children.append(child)
    codes = []
    while children:
        child, status = os.waitpid(-1 if len(children) > 1 else children[0], 0)
        children.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
        if len(children) == 1:
            Path("go").touch()
    return codes


FRESH, AGAIN = ["c.yaml"], ["--resume", "run", "budget.local_steps=24"]


@pytest.mark.parametrize(
    ("before", "commands"),
    [(False, [FRESH] * 4), (True, [AGAIN] * 4), (True, [FRESH, AGAIN, FRESH, AGAIN])],
    ids=["fresh", "resumed", "of both kinds"],
)
def test_of_several_at_once_one_goes_on(before: bool, commands: list[list[str]]) -> None:
    with finished() if before else here():
        Path("c.yaml").write_text(to_yaml(CHECKPOINTED), encoding="utf-8")
        codes = both_at_once(commands)
        assert sorted(codes) == [0, 2, 2, 2]
        records = {name: Path("run", name).read_bytes() for name in RECORDS}
        assert records == {name: files(24 if before else 12)[f"run/{name}"] for name in RECORDS}
