"""Conformance of inner optimizers: a state that stays what it is, steps that are functions, and the same everywhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from halos.config.layers import merge
from halos.config.yaml_text import Section
from halos.testing.conformance.suite import JITTER, Suite
from halos.testing.resuming import problem
from halos.testing.situations import Situation
from halos.testing.witness import everything, fingerprint, first_difference
from halos.training.optimizers import InnerOptimizer, Moments
from halos.values.params import Layout

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "a transformer": {
        "gpt_neox.embed_in.weight": (20, 8),
        "gpt_neox.layers.0.attention.query_key_value.weight": (24, 8),
        "gpt_neox.layers.0.attention.query_key_value.bias": (24,),
        "gpt_neox.layers.0.attention.dense.weight": (8, 8),
        "gpt_neox.layers.0.mlp.dense_4h_to_h.weight": (8, 32),
        "gpt_neox.final_layer_norm.weight": (8,),
        "embed_out.weight": (20, 8),
    },
    "a convolution": {"conv.weight": (4, 3, 5, 5), "conv.bias": (4,), "scale": ()},
    "a vector": {"theta": (7,)},
    "one number": {"theta": (1,)},
}
TRANSFORMER: Section = {
    "model": {"name": "gpt_neox", "hidden_size": 8, "layers": 2, "heads": 2, "wire_bytes": 1_000_000},
    "data": {"name": "synthetic", "samples": 512, "sequence_length": 8, "vocab_size": 16},
    "train": {"batch_size": 2, "clip": 1.0},
}


class InnerOptimizerConformance(Suite):
    """Steps along normally distributed gradients, in four layouts, and runs of a small transformer."""

    kind: ClassVar[str] = "inner optimizer"
    rate: ClassVar[float] = 1e-3  # of steps
    tolerance: ClassVar[float] = 1e-5  # of rows that are stepped together, relative to those stepped one by one
    # How far a stacked run may end from inline's, relative to that: much for one whose steps are as large where a
    # gradient is nothing but rounding.
    stacked: ClassVar[float] = 1e-3

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_its_state_is_what_it_says_and_stays_so(self, section: Section, shapes: str) -> None:
        """Vectors of the model's type, no longer than the model, and numbers; the same tensors, step after step."""
        for dtype in (torch.float32, torch.float64):
            optimizer, layout = self.optimizer(section), Layout(SHAPES[shapes], dtype)
            with self.about(section, f", {shapes}"):
                said, state = optimizer.init(layout, torch.device("meta")), optimizer.init(layout, CPU)
                for name, tensor in state.items():
                    vector = tensor.dim() == 1 and 0 < len(tensor) <= layout.size and tensor.dtype == dtype
                    words = f"{shapes}: {name} is {tensor.dtype} {list(tensor.shape)}, neither a number nor a vector"
                    fits = tensor.dim() == 0 or vector
                    self.check(fits, section, f"{words} of {dtype} with at most {layout.size} numbers")
                before = [(name, tensor.shape, tensor.dtype, tensor.data_ptr()) for name, tensor in state.items()]
                sizes = [(name, tensor.shape, tensor.dtype) for name, tensor in said.items()]
                alike = sizes == [each[:3] for each in before]
                self.check(alike, section, f"{shapes}: on the meta device its state is {sizes}, else {before}")
                self.steps(optimizer, layout, state, 3)
                after = [(name, tensor.shape, tensor.dtype, tensor.data_ptr()) for name, tensor in state.items()]
            self.check(after == before, section, f"{shapes}: its state was {before}, and after steps it is {after}")

    def test_states_are_new_each_time(self, section: Section) -> None:
        optimizer, layout = self.optimizer(section), Layout(SHAPES["a transformer"])
        with self.about(section):
            one = optimizer.init(layout, CPU)
            expected = fingerprint(one)
            self.steps(optimizer, layout, one, 2)
            again = fingerprint(optimizer.init(layout, CPU))
        self.check(again == expected, section, "a second state is another one: it has part in the first, or draws")

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_is_a_function_of_its_arguments(self, section: Section, shapes: str) -> None:
        """Wherever parameters lie, whatever is done to the gradient afterwards, and by another instance as well."""
        layout, optimizer = Layout(SHAPES[shapes]), self.optimizer(section)
        with self.about(section, f", {shapes}"):
            ends = [
                fingerprint(self.steps(one, layout, one.init(layout, CPU), 3, moving))
                for one, moving in ((optimizer, False), (optimizer, True), (self.optimizer(section), False))
            ]
        self.check(ends[0] == ends[1], section, f"{shapes}: it remembers parameters or gradients of earlier steps")
        self.check(ends[0] == ends[2], section, f"{shapes}: the same steps end otherwise by another instance")

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_steps_of_no_length_change_no_parameter(self, section: Section, shapes: str) -> None:
        layout, optimizer = Layout(SHAPES[shapes]), self.optimizer(section)
        state = optimizer.init(layout, CPU)
        params = normal(layout, 0)
        with self.about(section, f", {shapes}"):
            self.begin(optimizer, params, state)
            for seed in range(1, 4):
                optimizer.step(params, normal(layout, seed), state, 0.0, layout)
        self.check(torch.equal(params, normal(layout, 0)), section, f"{shapes}: a rate of 0 moves parameters")

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_a_gradient_of_zero_moves_nothing_but_by_decay(self, section: Section, shapes: str) -> None:
        """At θ = 0, where decay does nothing either."""
        layout, optimizer = Layout(SHAPES[shapes]), self.optimizer(section)
        state, params = optimizer.init(layout, CPU), torch.zeros(layout.size)
        with self.about(section, f", {shapes}"):
            self.begin(optimizer, params, state)
            for _ in range(3):
                optimizer.step(params, torch.zeros(layout.size), state, self.rate, layout)
        self.check(not params.any(), section, f"{shapes}: from 0, steps along a gradient of zero lead to {params}")

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_goes_down(self, section: Section, shapes: str) -> None:
        """Of ½ |θ − 1|², from θ = 0, where gradients are −1: with twenty steps, in every tensor."""
        layout, optimizer = Layout(SHAPES[shapes]), self.optimizer(section)
        state, params = optimizer.init(layout, CPU), torch.zeros(layout.size)
        with self.about(section, f", {shapes}"):
            self.begin(optimizer, params, state)
            for _ in range(20):
                optimizer.step(params, params - 1.0, state, self.rate, layout)
        for name in layout.shapes:
            piece = params[layout.slice_of(name)]
            away = float((piece - 1.0).square().mean())
            self.check(away < 1.0, section, f"{shapes}: {name} is {away:.6g} away from the optimum, at first it was 1")

    def test_goes_on_from_a_state_that_was_saved(self, section: Section) -> None:
        layout = Layout(SHAPES["a transformer"])
        optimizer, other = self.optimizer(section), self.optimizer(section)
        with self.about(section):
            state = optimizer.init(layout, CPU)
            params = self.steps(optimizer, layout, state, 3)
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            loaded: Moments = torch.load(file, weights_only=True)
            mine = self.steps(optimizer, layout, state, 3, params=params.clone())
            others = self.steps(other, layout, loaded, 3, params=params.clone())
        self.check(torch.equal(mine, others), section, "it keeps something that is not in its state")

    @pytest.mark.parametrize("shapes", SHAPES)
    def test_rows_are_stepped_as_if_alone(self, section: Section, shapes: str) -> None:
        """Where it has `step_rows`: each as by `step`, and to the bit whatever the others are, and how many."""
        optimizer: Any = self.optimizer(section)
        if not hasattr(optimizer, "step_rows"):
            pytest.skip("steps rows one by one")
        layout = Layout(SHAPES[shapes], torch.float64)
        rates = self.rate * torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 1.0]], dtype=torch.float64)
        with self.about(section, f", {shapes}"):
            params, state = self.rows(optimizer, layout, rates)
            for row in range(3):
                alone, kept = normal(layout, row), optimizer.init(layout, CPU)
                self.begin(optimizer, alone, kept)
                for step in range(2):
                    optimizer.step(alone, normal(layout, 10 * step + row), kept, float(rates[step, row]), layout)
                for name, ours, theirs in [
                    ("params", params[row], alone),
                    *((name, state[name][row], kept[name]) for name in kept),
                ]:
                    away = float(torch.linalg.vector_norm((ours - theirs).double()))
                    most = self.tolerance * float(torch.linalg.vector_norm(theirs.double()))
                    self.check(away <= most, section, f"{shapes}: in a row {name} ends {away:.3g} away from alone")
            fewer, _ = self.rows(optimizer, layout, rates[:, :2])
            wild, _ = self.rows(optimizer, layout, rates, scale=1e6)
        self.check(torch.equal(fewer, params[:2]), section, f"{shapes}: rows depend on how many there are")
        self.check(torch.equal(wild[:2], params[:2]), section, f"{shapes}: rows depend on what is in others")

    def test_a_step_is_left_out_where_it_is_to_be(self, section: Section) -> None:
        """Where it has `step_unless`."""
        optimizer: Any = self.optimizer(section)
        if not hasattr(optimizer, "step_unless"):
            pytest.skip("is not asked for such steps")
        layout = Layout(SHAPES["a transformer"])
        params, others = normal(layout, 0), normal(layout, 0)
        state, theirs = optimizer.init(layout, CPU), optimizer.init(layout, CPU)
        with self.about(section):
            for seed in (1, 2):
                for grad, unless in ((normal(layout, seed), 0.0), (normal(layout, 3) / 0.0, 1.0)):
                    optimizer.step_unless(params, grad, state, self.rate, layout, torch.tensor(unless))
                optimizer.step(others, normal(layout, seed), theirs, self.rate, layout)
        alike = fingerprint([params, state]) == fingerprint([others, theirs])
        self.check(alike, section, "steps between those that are left out are not what they are alone")

    def test_second_moments_are_a_vector_of_their_own(self, section: Section) -> None:
        """Where it has `second_moments`: none that is negative, and none before the first step."""
        optimizer: Any = self.optimizer(section)
        if not hasattr(optimizer, "second_moments"):
            pytest.skip("keeps none")
        layout = Layout(SHAPES["a transformer"])
        with self.about(section):
            state = optimizer.init(layout, CPU)
            first = optimizer.second_moments(state)
            self.steps(optimizer, layout, state, 2)
            before = fingerprint(state)
            found = optimizer.second_moments(state)
        self.check(first is None, section, f"before the first step it says {first}")
        fits = found.shape == (layout.size,) and bool((found >= 0.0).all())
        self.check(fits, section, f"its second moments are {found}")
        found.zero_()
        self.check(fingerprint(state) == before, section, "who writes to them writes to its state")

    @pytest.mark.parametrize("policy", ["diloco", "async_local_sgd"])
    def test_runs_are_the_same_in_other_processes_and_in_stacks(self, section: Section, policy: str) -> None:
        """In other processes to the bit, in stacks but for rounding."""
        runs = [
            self.record(section, self.run_of(section, policy) | {"executor": executor}, f", {policy}, {executor}")
            for executor in ({"name": "inline"}, {"name": "parallel", "processes": 2}, {"name": "stacked", "most": 4})
        ]
        inline, parallel, stacked = runs
        what = first_difference(everything(inline), everything(parallel))
        self.check(what is None, section, f"{policy}: in one process and in several, {what}")
        ours, theirs = stacked.simulation.params, inline.simulation.params
        away = (ours - theirs).norm() / theirs.norm()
        self.check(away <= self.stacked, section, f"{policy}: a stacked run ends {away:.3g} away from inline")

    @pytest.mark.parametrize("state", ["kept", "new"])
    def test_runs_are_resumed_to_the_bit(self, section: Section, state: str) -> None:
        sections = merge(self.run_of(section, "async_local_sgd"), {"train": {"optimizer_state": state}})
        with self.about(section):
            what = problem(sections, [*self.plugins, JITTER])
        self.check(what is None, section, f"{what}")

    def run_of(self, section: Section, policy: str) -> Section:
        """A run of two unequal workers."""
        sections = merge(Situation(2, "jitter").sections(3, 3), {**TRANSFORMER, "policy": {"name": policy}})
        model = {key: value for key, value in sections["model"].items() if key in TRANSFORMER["model"]}
        optimizer = {**section, "lr": self.rate}
        return {**sections, "model": model, "train": {**sections["train"], "optimizer": optimizer}}

    def steps(
        self,
        optimizer: InnerOptimizer,
        layout: Layout,
        state: Moments,
        count: int,
        moving: bool = False,
        params: Any = None,
    ) -> torch.Tensor:
        """Take so many steps; if it is `moving`, with parameters in another place each time, and nothing left."""
        params = normal(layout, 0) if params is None else params
        self.begin(optimizer, params, state)
        for seed in range(1, count + 1):
            grad = normal(layout, seed)
            optimizer.step(params, grad, state, self.rate, layout)
            if moving:
                grad.fill_(torch.nan)
                left, params = params, params.clone()
                left.fill_(torch.nan)
        found: torch.Tensor = params
        return found

    def begin(self, optimizer: InnerOptimizer, params: torch.Tensor, state: Moments) -> None:
        """Begin a job, if it wants to know."""
        begin: Callable[..., None] = getattr(optimizer, "begin", lambda params, state: None)
        begin(params, state)

    def rows(
        self, optimizer: Any, layout: Layout, rates: torch.Tensor, scale: float = 1.0
    ) -> tuple[torch.Tensor, Moments]:
        """Step several rows; the last of three with gradients so many times as large."""
        steps, count = rates.shape
        params = torch.stack([normal(layout, row) for row in range(count)])
        states = [optimizer.init(layout, CPU) for _ in range(count)]
        for row, state in enumerate(states):
            self.begin(optimizer, params[row], state)
        state = {name: torch.stack([each[name] for each in states]) for name in states[0]}
        grad = torch.empty_like(params)
        take = optimizer.step_rows(params, grad, state, rates, layout)
        for step in range(steps):
            for row in range(count):
                grad[row] = normal(layout, 10 * step + row) * (scale if row == 2 else 1.0)
            take(step)
        return params, state

    def optimizer(self, section: Section) -> InnerOptimizer:
        """A new one."""
        optimizer: InnerOptimizer = self.build(section)
        return optimizer


def normal(layout: Layout, seed: int) -> torch.Tensor:
    """Normally distributed numbers, the same for the same seed, [P]."""
    return torch.randn(layout.size, generator=torch.Generator().manual_seed(seed), dtype=layout.dtype)
