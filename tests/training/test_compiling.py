"""`train.compile`: the same training by compiled code, and what is said where nothing can be compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Optional

import pytest
import torch
from torch import Tensor, nn

from halos.data.batch import Batch
from halos.errors import UserError
from halos.models.gpt_neox import GPTNeoX
from halos.models.toy import Quadratic
from halos.testing import record, tiny
from halos.training.optimizers import SGD
from halos.training.options import ScheduleOptions, TrainOptions
from halos.training.trainer import Trainer
from halos.values.params import Params
from tests.conftest import Command

CPU = torch.device("cpu")
STEADY = ScheduleOptions(name="constant")
NEOX = GPTNeoX(hidden_size=16, layers=1, heads=2)
SGD = SGD(lr=0.5)
compile = torch.compile


def batches(size: int = 2) -> Iterator[Any]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randint(32, (size, 9), generator=generator)


def trainer(model: Any, **options: Any) -> Trainer:
    """A trainer whose module was looked at; from then on nothing may be compiled again."""
    one = Trainer(model.build(32, 0), TrainOptions(**{"batch_size": 2, "schedule": STEADY, **options}), CPU)
    one.look(model, batches(one.options.micro))
    return one


def trained(one: Trainer, steps: int = 1, start: Optional[Params] = None) -> Tensor:
    params, _, _, _ = one.train(0, start or one.initial(), steps, 0, batches(one.options.micro), 0.0)
    return flat(params)


def flat(params: Params) -> Tensor:
    assert params.flat is not None
    return params.flat


@pytest.fixture
def once() -> Iterator[None]:
    """Whatever is compiled a second time is an error, and what other tests have compiled is forgotten."""
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


@pytest.fixture
def graphs(once: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Graphs are not made into machine code, which takes a compiler and its time; those that there were."""
    made: list[Any] = []
    traced = torch._dynamo.lookup_backend("aot_eager")

    def backend(graph: Any, inputs: Any, **options: Any) -> Any:
        made.append(graph)
        return traced(graph, inputs, **options)

    monkeypatch.setattr(torch, "compile", lambda module, **_: compile(module, backend=backend))
    return made


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
@pytest.mark.usefixtures("once")
def test_compiled_code_trains_as_the_module_does() -> None:
    """By hand: a step of rate ½ halves the way to the optimum, 1. And GPT-NeoX, which has all that a compiler fuses."""
    one = trainer(Quadratic(size=1, dtype="float64"), optimizer=SGD, clip=0.0, compile=True)
    assert trained(one, 3).tolist() == [1 - 0.5**3]
    torch.compiler.reset()
    ours, theirs = (trained(trainer(NEOX, optimizer=SGD, compile=compile)) for compile in (True, False))
    assert 0 < torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs) < 1e-5  # 0: it was not used


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 4, "micro_batch_size": 2}, {"precision": "bf16"}, {"precision": "fp16"}],
    ids=["fp32", "micro-batches", "bf16", "fp16"],
)
def test_a_traced_module_trains_like_itself_in_every_precision(graphs: list[Any], options: dict[str, Any]) -> None:
    ours, theirs = (trainer(NEOX, compile=compile, **options) for compile in (True, False))
    torch.testing.assert_close(trained(ours, 4), trained(theirs, 4))
    assert len(graphs) == 1
    gradients = [each.gradient(1, each.initial(), 2, batches(each.options.micro), 0.0)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*map(flat, gradients))


def test_states_go_from_a_compiled_trainer_to_another(graphs: list[Any]) -> None:
    one, other = trainer(NEOX, compile=True), trainer(NEOX)
    start = one.initial()
    trained(one, 2)
    other.states.restore(deepcopy(one.states.state()))
    torch.testing.assert_close(trained(other, 2, start), trained(one, 2, start))
    assert one.whole(start).keys() == NEOX.build(32, 0).state_dict().keys()


class Pairs(nn.Module):
    """½ (θ − mean of the labels)², of samples that are a tensor and a label."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Tensor:
        _, labels = batch
        return 0.5 * (self.theta - labels.mean()).square().sum()

    def build(self, vocab_size: Optional[int], seed: int) -> nn.Module:
        return self


def test_samples_of_several_tensors(graphs: list[Any]) -> None:
    model = Pairs()
    one = Trainer(model, TrainOptions(batch_size=2, optimizer=SGD, schedule=STEADY, clip=0.0, compile=True), CPU)
    samples: Callable[[], Any] = lambda: (Batch(torch.zeros(2, 3), torch.tensor([1.0, 3.0])) for _ in range(9))  # noqa: E731
    one.look(model, samples())
    params, _, _, _ = one.train(0, one.initial(), 2, 0, samples(), 0.0)
    assert flat(params).tolist() == [2 * (1 - 0.5**2)] and graphs


def test_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "compile")
    trained(trainer(NEOX))
    with pytest.raises(UserError, match="has no attribute 'compile'"):
        trainer(NEOX, compile=True)


COMPILED = tiny(train={"compile": True}) | {"model": {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2}}


def test_processes_that_compile_each_for_itself_get_the_bits_of_one(graphs: list[Any]) -> None:
    """The tables of angles are made in a first look, everywhere: a graph that makes them is another one."""
    one = record(COMPILED)
    several = record(COMPILED | {"executor": {"name": "parallel", "processes": 2}})
    first, second = (flat(each.global_commits[-1].params) for each in (one, several))
    assert torch.equal(first, second)


def test_what_cannot_be_compiled_is_said_before_anything_is_written(
    command: Command, tiny_yaml: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Any, inputs: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler found: c++\nand a second line")

    monkeypatch.setattr(torch, "compile", lambda module, **_: compile(module, backend=broken))
    answer = command("tiny.yaml", "train.compile=true", files={"tiny.yaml": tiny_yaml()})
    assert answer.code == 2 and not answer.made
    begins, ends = "error: model: Quadratic: cannot be compiled here: ", "; train.compile=false trains it as it is\n"
    assert answer.err.startswith(begins) and answer.err.endswith(ends) and answer.err.count("\n") == 1
    assert "no compiler found: c++" in answer.err
