"""Random generators: one per draw, the same on every machine."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from halos.errors import ConfigError
from halos.seeds import drawing, generator, own_seed, seed_for
from halos.testing import Recording, record, tiny
from halos.testing.situations import TestingJitter
from halos.training.inline import Inline


def test_a_seed_is_the_beginning_of_a_hash_anybody_can_compute() -> None:
    # printf '1/data/2' | sha256sum begins 96e93dd35a96cee2, printf '7/noise' | sha256sum 9b45da258b8de903; halved.
    assert seed_for(1, "data", 2) == 0xE2CE965AD33DE996 >> 1
    assert seed_for(7, "noise") == 0x03E98D8B25DA459B >> 1


def test_every_draw_has_a_seed_of_its_own() -> None:
    seeds = [seed_for(*each) for each in product((1, 2), ("data", "noise"), (1, 12), (1, 2, 12))]
    assert len(set(seeds)) == 24
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_begins_anew_each_time_it_is_asked_for() -> None:
    first, again, other = (generator(1, "data", each).random(3).tolist() for each in (2, 2, 3))
    assert first == again
    assert not set(first) & set(other)


def test_what_is_drawn_from_global_generators_follows_from_the_seed_and_leaves_them_alone() -> None:
    def draws() -> tuple[float, ...]:
        return torch.rand(1).item(), random.random(), float(np.random.rand())

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    first, second = draws(), draws()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    assert draws() == first
    with drawing(7):
        inside = draws()
        with drawing(8):
            assert draws() != inside
    assert draws() == second
    with drawing(7):
        assert draws() == inside


def test_a_seed_of_its_own_counts_more_than_the_runs() -> None:
    assert [own_seed(TestingJitter(seed=seed), 5) for seed in (None, 0, 7)] == [5, 0, 7]
    assert own_seed(object(), 5) == 5


# Runs


KEYS = ("data.seed", "data.split_seed", "model.seed", "compute.seed", "faults.seed")


def drawn(tmp_path: Path, seed: int, **own: int) -> tuple[Recording, dict[str, Any]]:
    """A run in which everything is drawn, and what was drawn for each key."""
    (tmp_path / "texts").mkdir(exist_ok=True)
    for number in range(8):  # each of 8 bytes and a separator: 71 bytes make 8 samples, the last two for validation
        (tmp_path / "texts" / str(number)).write_bytes(bytes([65 + number]) * 8)
    sections = tiny(
        model={"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 1},
        data={"name": "text", "path": str(tmp_path / "texts"), "sequence_length": 8, "validation_samples": 2},
        faults={"name": "crashes", "between_failures_hours": 0.01, "to_repair_hours": 0.001},
        budget={"local_steps": 8},
        seed=seed,
    )
    sections["compute"] = {"name": "testing_jitter"}
    for key, value in own.items():
        part, name = key.split("__")
        sections[part] = {**sections[part], name: value}
    run = record(sections, ["halos.testing.situations"])
    executor, workers = run.config.executor, run.simulation.workers
    assert isinstance(executor, Inline)
    feed = executor._feed
    initial = executor._task.model.build(256, executor._task.model_seed).state_dict()
    return run, {
        "data.seed": [feed._rows(0, 0, 0, 5).tolist()],  # type: ignore[union-attr]
        "data.split_seed": [batch.tolist() for batch in feed.validation(8)],
        "model.seed": [tensor.tolist() for tensor in initial.values()],
        "compute.seed": [run.config.compute.seconds(workers[0], 1, 0.0, job) for job in range(3)],
        "faults.seed": [run.config.faults.outage(worker, 0.0) for worker in workers],
    }


@pytest.mark.parametrize("key", KEYS)
def test_each_seed_can_be_fixed_alone(tmp_path: Path, key: str) -> None:
    _, one = drawn(tmp_path, 1)
    _, two = drawn(tmp_path, 2)
    _, mixed = drawn(tmp_path, 2, **{key.replace(".", "__"): 1})
    assert all(one[other] != two[other] for other in KEYS), "everything is drawn by the run's seed"
    assert {other: mixed[other] for other in KEYS} == {**two, key: one[key]}


def test_the_runs_seed_is_all_of_them_at_once(tmp_path: Path) -> None:
    one, _ = drawn(tmp_path, 1)
    all_of_them, _ = drawn(tmp_path, 2, **{key.replace(".", "__"): 1 for key in KEYS})
    assert [each.as_json() for each in one.heard] == [each.as_json() for each in all_of_them.heard]


def test_inner_faults_have_seeds_of_their_own_or_follow_each_other() -> None:
    def outages(**own: int) -> list[Any]:
        kind = {"name": "crashes", "between_failures_hours": 1.0}
        run = record(tiny(faults={"name": "several", "of": [{**kind, **own}, kind]}, executor={"name": "timing"}))
        return [model.outage(run.simulation.workers[0], 0.0) for model in run.config.faults.of]  # type: ignore[attr-defined]

    first, second = outages()
    fixed = outages(seed=1235)  # the run's is 1234; the second's is one more
    assert first != second
    assert fixed == [second, second]


@pytest.mark.parametrize("key", ["seed", "data.seed", "data.split_seed", "model.seed", "compute.seed", "faults.seed"])
def test_a_seed_is_not_negative(key: str) -> None:
    part, _, name = key.rpartition(".")
    changes: dict[str, Any] = {part: {name: -1}} if part else {name: -1}
    with pytest.raises(ConfigError, match=rf"^{key}: -1 is not a number from 0 to 2\^63 - 1$"):
        record(tiny(**{"compute": {"name": "constant"}, "faults": {"name": "none"}, **changes}))
