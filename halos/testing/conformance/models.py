"""Conformance of models: say the shapes for nothing, and build a module of them that can be trained."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from halos.config.yaml_text import Section
from halos.errors import UserError
from halos.models import Model
from halos.testing.conformance.suite import Suite
from halos.testing.recording import tiny
from halos.testing.witness import content, everything, first_difference

VOCABULARY = 64
SEED = 1234


class ModelConformance(Suite):
    """Built for 64 different tokens and fed random ones; then trained by two workers."""

    kind: ClassVar[str] = "model"
    sequence_length: ClassVar[int] = 8

    def test_says_its_shapes(self, section: Section) -> None:
        """One or more tensors, the shape of each a tuple of whole numbers."""
        shapes = self.model(section).shapes(VOCABULARY)
        good = bool(shapes) and all(all(type(each) is int and each >= 0 for each in one) for one in shapes.values())
        self.check(good, section, f"{shapes} are no shapes")

    def test_builds_what_it_says(self, section: Section) -> None:
        built = {name: tuple(parameter.shape) for name, parameter in self.module(section).named_parameters()}
        said = dict(self.model(section).shapes(VOCABULARY))
        self.check(built == said, section, f"says {said}, builds {built}")

    def test_weights_follow_from_the_seed_alone(self, section: Section) -> None:
        """Not from what torch's own generator has drawn before."""
        built = []
        for state in (0, 1):
            torch.manual_seed(state)
            built.append([content(parameter) for parameter in self.module(section).parameters()])
        self.check(built[0] == built[1], section, "two modules of one seed have different weights")

    def test_loss_is_a_finite_number_with_a_gradient_everywhere(self, section: Section) -> None:
        """The same each time, in training as in evaluation, also after torch's own generator has drawn."""
        module = self.module(section)
        losses: list[float] = []
        with self.about(section):
            for mode in (True, True, False, False):
                module.train(mode)
                loss: torch.Tensor = module(self.batch())
                self.check(loss.shape == (), section, f"its loss has shape {tuple(loss.shape)}, and is no scalar")
                losses.append(float(loss.detach()))
            module.train()
            module(self.batch()).backward()
        self.check(all(torch.isfinite(torch.tensor(losses))), section, f"its losses are {losses}")
        repeated = losses[0] == losses[1] and losses[2] == losses[3]
        self.check(repeated, section, f"the loss of one batch is {losses[:2]} in training, {losses[2:]} in evaluation")
        without = [
            name
            for name, parameter in module.named_parameters()
            if parameter.grad is None or not parameter.grad.isfinite().all()
        ]
        self.check(not without, section, f"no finite gradient reaches {', '.join(without)}")

    def test_is_trained_twice_alike(self, section: Section) -> None:
        """And is timed without being trained."""
        self.module(section)
        sections = tiny(data={"sequence_length": self.sequence_length, "vocab_size": VOCABULARY}) | {"model": section}
        one, other = (everything(self.record(section, sections)) for _ in range(2))
        what = first_difference(one, other)
        self.check(what is None, section, f"trained twice, {what}")
        timed = self.record(section, sections | {"executor": {"name": "timing"}})
        self.check(timed.simulation.params.hollow, section, "its timeline holds values")

    def model(self, section: Section) -> Model:
        """A new configuration of it."""
        model: Model = self.build(section)
        return model

    def module(self, section: Section) -> torch.nn.Module:
        """Built, if it can be: one that is only a size says by a UserError that it cannot."""
        model = self.model(section)
        try:
            return model.build(VOCABULARY, SEED)
        except UserError as error:
            pytest.skip(str(error))

    def batch(self) -> torch.Tensor:
        """Two samples of random tokens."""
        random = torch.Generator().manual_seed(0)
        return torch.randint(VOCABULARY, (2, self.sequence_length + 1), generator=random)
