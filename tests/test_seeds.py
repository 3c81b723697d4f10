"""Random generators: one per draw, the same on every machine."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import torch

from halos.seeds import drawing, generator, seed_for


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
