"""Conformance of models: build a module from the seed alone, that keeps nothing where nobody can see it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import repeat
from typing import Any, ClassVar, Optional

import pytest
import torch

from halos.config.yaml_text import Section
from halos.errors import UserError
from halos.models import Model
from halos.models.building import built, refuse_other_shapes, shapes_of
from halos.testing.conformance.suite import Suite
from halos.testing.recording import tiny
from halos.testing.witness import content, everything, fingerprint, first_difference
from halos.training.optimizers import SGD
from halos.training.options import TrainOptions
from halos.training.trainer import Trainer
from halos.values.params import Params

SEED = 1234
OPTIONS = TrainOptions(batch_size=2, optimizer=SGD(lr=0.01))
UNSEEN = (
    "it keeps something that is neither parameter nor buffer (an attribute, a tensor that was not registered), or draws"
    " from a generator that is neither its own torch.Generator nor a global one"
)


class ModelConformance(Suite):
    """Built and fed a batch of random tokens, or one of the data that it is for; then trained by two workers."""

    kind: ClassVar[str] = "model"
    sequence_length: ClassVar[int] = 8
    vocabulary: ClassVar[Optional[int]] = 64  # different tokens; None: the data are no tokens
    data: ClassVar[Optional[Section]] = None  # to train it on, with a `batch` of the same kind; None: tokens

    def test_says_its_shapes(self, section: Section) -> None:
        """One or more tensors, the shape of each a tuple of whole numbers."""
        with self.about(section):
            shapes = shapes_of(self.model(section), self.vocabulary)
        good = bool(shapes) and all(all(type(each) is int and each >= 0 for each in one) for one in shapes.values())
        self.check(good, section, f"{shapes} are no shapes")

    def test_builds_what_it_says(self, section: Section) -> None:
        module = self.module(section)
        with self.about(section):
            refuse_other_shapes(shapes_of(self.model(section), self.vocabulary), module)

    def test_weights_follow_from_the_seed_alone(self, section: Section) -> None:
        """Not from what torch's own generator has drawn before."""
        modules = []
        for state in (0, 1):
            torch.manual_seed(state)
            modules.append([content(parameter) for parameter in self.module(section).parameters()])
        self.check(modules[0] == modules[1], section, "two modules of one seed have different weights")

    def test_loss_is_a_finite_number_with_a_gradient_everywhere(self, section: Section) -> None:
        """In training as in evaluation; and the same each time, whatever torch's own generator has drawn before."""
        found: list[Any] = []
        for state in (0, 1):
            trainer, start = self.trainer(section)
            torch.manual_seed(state)
            with self.about(section):
                gradient, losses = trainer.gradient(0, start, 2, self.batches(), 0.0)[:2]
                evaluation = trainer.evaluate(start, iter([self.batch()]))["loss"]
            finite = torch.isfinite(torch.tensor([*losses, evaluation])).all()
            self.check(bool(finite), section, f"its losses are {losses} in training, {evaluation} in evaluation")
            bad = [name for name, tensor in gradient.tensors().items() if not tensor.isfinite().all()]
            self.check(not bad, section, f"no finite gradient reaches {', '.join(bad)}")
            found.append((fingerprint(gradient), losses, evaluation))
        words = f"the loss of one batch is {found[0][1:]} and {found[1][1:]} in two modules of one seed"
        self.check(found[0] == found[1], section, words)

    def test_a_job_does_not_depend_on_those_of_other_workers(self, section: Section) -> None:
        """Nor on evaluations."""
        alone, start = self.trainer(section)
        together, _ = self.trainer(section)
        with self.about(section):
            self.job(together, start, 0, 0)
            together.evaluate(start, iter([self.batch()]))
            same = self.job(alone, start, 1, 1) == self.job(together, start, 1, 1)
        self.check(same, section, f"a job comes out otherwise after another worker's: {UNSEEN}")

    def test_goes_on_from_what_is_saved(self, section: Section) -> None:
        whole, start = self.trainer(section)
        resumed, _ = self.trainer(section)
        with self.about(section):
            self.job(whole, start, 0, 0)
            resumed.states.restore(copy.deepcopy(whole.states.state()))
            same = self.job(whole, start, 0, 1) == self.job(resumed, start, 0, 1)
        self.check(same, section, f"a job comes out otherwise when the run was resumed before it: {UNSEEN}")

    def test_is_trained_twice_alike(self, section: Section) -> None:
        """And is timed without being trained."""
        self.module(section)
        tokens = {"sequence_length": self.sequence_length, "vocab_size": self.vocabulary}
        sections = tiny(data=tokens) if self.data is None else tiny() | {"data": self.data}
        sections = sections | {"model": section, "train": {**sections["train"], "batch_size": 2}}
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
            return built(model, self.vocabulary, SEED)
        except UserError as error:
            if error.__cause__ is not None:  # something went wrong
                raise AssertionError(f"{self.name(section)}: {error}") from error
            pytest.skip(str(error))

    def trainer(self, section: Section) -> tuple[Trainer, Params]:
        """Of a new module, that has looked at a batch, as an executor does; and the initial parameters."""
        module = self.module(section)
        with self.about(section):
            trainer = Trainer(module, OPTIONS, torch.device("cpu"), SEED)
            trainer.look(self.model(section), self.batches())
        return trainer, trainer.initial()

    def job(self, trainer: Trainer, start: Params, worker: int, number: int) -> Any:
        """What comes of two steps by a worker, bit for bit."""
        return fingerprint(trainer.train(worker, start, 2, 0, self.batches(), 0.0, number))

    def batches(self) -> Iterator[torch.Tensor]:
        """The same batch, for ever."""
        return repeat(self.batch())

    def batch(self) -> torch.Tensor:
        """Two samples of random tokens."""
        random = torch.Generator().manual_seed(0)
        return torch.randint(self.vocabulary or 64, (2, self.sequence_length + 1), generator=random)
