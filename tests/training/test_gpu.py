"""What must hold on a GPU, each also tried on the CPU: the same training, its memory, and nothing waited for."""

from __future__ import annotations

import gc
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from halos.config.yaml_text import to_yaml
from halos.data.batch import Batch, moved
from halos.models.gpt_neox import GPTNeoX
from halos.models.toy import Quadratic
from halos.testing import record, tiny
from halos.training.optimizers import SGD, AdamW
from halos.training.options import ScheduleOptions, TrainOptions
from halos.training.trainer import Trainer
from halos.values.params import Params
from tests.run.cutting import go_on, make

CPU = torch.device("cpu")
STEADY = ScheduleOptions(name="constant")
NEOX = GPTNeoX(hidden_size=16, layers=2, heads=2)
on_a_gpu = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=on_a_gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def batches(size: int, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(32, (size, 9), generator=generator)


def trainer(device: torch.device, model: Any = NEOX, **options: Any) -> Trainer:
    """A trainer whose module was looked at, as it is in a run."""
    one = Trainer(model.build(32, 0), TrainOptions(**{"batch_size": 4, "schedule": STEADY, **options}), device)
    one.look(model, batches(one.options.micro))
    return one


def trained(one: Trainer, start: Params, steps: int, worker: int = 0) -> tuple[Tensor, float]:
    """Where a job leads, on the CPU, and its mean loss."""
    params, _, _, loss = one.train(worker, start, steps, 0, batches(one.options.micro), 0.0)
    assert params.flat is not None
    return params.flat.cpu(), loss


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_trains_like_the_cpu(device: torch.device, precision: str) -> None:
    here, there = trainer(device, precision=precision), trainer(CPU)
    _, ours = trained(here, here.initial(), 16)
    _, theirs = trained(there, there.initial(), 16)
    assert ours == pytest.approx(theirs, rel=1e-4 if precision == "fp32" else 0.02)


RUN = tiny(train={"batch_size": 2}, evaluate={"every_local_steps": 4}) | {
    "model": {"name": "gpt_neox", "hidden_size": 16, "layers": 1, "heads": 2}
}


def test_a_run_has_the_cpus_timeline_and_its_losses(device: torch.device) -> None:
    here = record(RUN | {"executor": {"name": "inline", "device": str(device)}})
    there = record(RUN | {"executor": {"name": "inline", "device": "cpu"}})
    assert [each.time for each in here.heard] == [each.time for each in there.heard]
    assert [each.loss for each in here.updates] == pytest.approx([each.loss for each in there.updates], rel=1e-4)
    assert here.evaluations[-1].loss == pytest.approx(there.evaluations[-1].loss, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_workers_in_a_stack_are_trained_like_one_after_another(device: torch.device, precision: str) -> None:
    four = RUN | {
        "train": RUN["train"] | {"precision": precision},
        "cluster": {"regions": [{"workers": [1.0, 1.0, 1.0, 0.5]}]},
        "steps": {"name": "by_speed", "base": 4},
        "budget": {"local_steps": 28},
    }
    stacked, inline = (
        record(four | {"executor": {"name": name, "device": str(device), **options}})
        for name, options in (("stacked", {"most": 4}), ("inline", {}))
    )
    assert [each.time for each in stacked.heard] == [each.time for each in inline.heard]
    first, second = (each.global_commits[0].params.tensors() for each in (stacked, inline))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5 if precision == "fp32" else 1e-2)
    ours, theirs = ([each.loss for each in run.updates] for run in (stacked, inline))
    assert ours == pytest.approx(theirs, rel=1e-5 if precision == "fp32" else 1e-2)


def test_a_state_moves_to_the_device_and_back(device: torch.device) -> None:
    """As a checkpoint does: what four steps have left goes on elsewhere as if it had always been there."""
    bowl = Quadratic(size=4, curvature=[1.0, 2.0, 3.0, 4.0])  # no gradient is so small that AdamW steps by its rounding
    adamw = AdamW(lr=0.9)  # beyond the optimum and back, which takes moments
    at_home, here, there = (trainer(each, bowl, optimizer=adamw) for each in (CPU, CPU, device))
    start = at_home.initial()
    elsewhere = Params(start.layout, start.flat.to(device))  # type: ignore[union-attr]
    for _ in range(3):
        last, _ = trained(at_home, start, 4)
    trained(here, start, 4)
    there.states.restore(through_a_file(here))
    trained(there, elsewhere, 4)
    here.states.restore(through_a_file(there))
    back, _ = trained(here, start, 4)
    torch.testing.assert_close(back, last, rtol=1e-6, atol=0)
    fresh, _ = trained(here, start, 4, worker=1)
    assert not torch.allclose(fresh, last, rtol=1e-4, atol=0), "a state that was lost would be noticed"


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_on_another_device(device: torch.device, first: bool, tmp_path: Path) -> None:
    """One begun on the device ends on the CPU, or the other way round, where one ends that stays on the CPU."""
    places = [f"executor.device={each}" for each in ((device, CPU) if first else (CPU, device))]
    config = to_yaml(RUN | {"observers": {"progress": False}})
    moving = make(tmp_path, config, "budget.local_steps=8", places[0], out="moving")
    go_on(moving, "budget.local_steps=16", places[1])
    staying = make(tmp_path, config, "budget.local_steps=16", "executor.device=cpu", out="staying")
    ours, theirs = (torch.load(folder / "model.pt") for folder in (moving, staying))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def through_a_file(one: Trainer) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(one.states.state(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


class Steep(nn.Module):
    """10³⁵ θ: its gradient, scaled by 2¹⁶ to 2¹², is infinite in fp32; by 2¹¹ it is 2.05 · 10³⁸."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Tensor) -> Tensor:
        return 1e35 * self.theta.sum()


def test_fp16_leaves_out_what_its_scale_was_too_large_for(device: torch.device) -> None:
    sgd = SGD(lr=1e-35)
    one = Trainer(Steep(), TrainOptions(batch_size=4, precision="fp16", optimizer=sgd, schedule=STEADY, clip=0), device)
    end, _ = trained(one, one.initial(), 7)
    assert one.states.skipped == 5 and end.tolist() == pytest.approx([-2.0])  # two steps of −1 were taken


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 2}, {"precision": "bf16"}], ids=["", "micro", "bf16"])
def test_compiled_it_trains_the_same(options: dict[str, Any]) -> None:
    """Two jobs, so that graphs are replayed; test_compiling.py has the same of the CPU."""
    torch.compiler.reset()
    device = torch.device("cuda")
    sgd = SGD(lr=0.1)
    eager, compiled = trainer(device, optimizer=sgd, **options), trainer(device, optimizer=sgd, **options, compile=True)
    start, lower = eager.initial(), "precision" in options
    for steps in (1, 4):
        (ours, our_loss), (theirs, their_loss) = (trained(one, start, steps) for one in (compiled, eager))
        assert our_loss == pytest.approx(their_loss, rel=1e-2 if lower else 1e-5)
        apart = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs)
        assert apart <= (1e-2 if lower else 1e-5)


def held(device: torch.device) -> int:
    """Bytes that tensors hold on a device."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    everywhere = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter)]
    tensors = [each for each in everywhere if each.device == device and each.layout == torch.strided]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())


def test_a_worker_more_costs_two_moments(device: torch.device) -> None:
    one = trainer(device, GPTNeoX(hidden_size=64, layers=2, heads=2))
    start = one.initial()
    trained(one, start, 1)
    before = held(device)
    for worker in range(1, 8):
        trained(one, start, 1, worker)
    assert 0 <= held(device) - before - 7 * 2 * 4 * start.size <= 7 * 4 * 1024  # rounded, and how often it has stepped


# Waiting: whoever asks for a number while a GPU computes waits until all is done that it was given


class Asked(TorchDispatchMode):
    """Counts the operations of which the result is a number here, and not a tensor there."""

    ANSWERS = ("aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero", "aten::unique")

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times += func.name().split(".")[0] in self.ANSWERS
        return func(*args, **(kwargs or {}))


@contextmanager
def waits(device: torch.device) -> Iterator[Counter[str]]:
    """How often something is waited for inside: by PyTorch's own account on a GPU, by what is asked on the CPU."""
    counted: Counter[str] = Counter()
    if device.type == "cpu":
        with Asked() as asked:
            yield counted
        counted["waits"] = asked.times
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield counted
    finally:
        torch.cuda.set_sync_debug_mode("default")
    counted["waits"] = sum("synchronizing" in str(each.message) for each in said)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_job_waits_at_its_end_and_no_step_does(device: torch.device, precision: str) -> None:
    one = trainer(device, precision=precision, micro_batch_size=2)
    start = one.initial()
    trained(one, start, 2)
    for steps in (1, 9):
        with waits(device) as counted:
            one.train(0, start, steps, 0, batches(2), 0.0)
        assert counted["waits"] <= (2 if precision == "fp16" else 1)  # for losses, and the scales that they had


def test_what_a_whole_run_waits_for_is_a_matter_of_its_jobs_and_not_of_their_steps(device: torch.device) -> None:
    several = []
    for steps in (2, 2, 6):  # of the first, what there is but once
        sections = RUN | {
            "executor": {"name": "inline", "device": str(device)},
            "steps": {"name": "fixed", "base": steps},
            "budget": {"local_steps": 4 * steps},  # two rounds of two workers
            "evaluate": {"every_local_steps": 2 * steps},
        }
        with waits(device) as counted:
            assert len(record(sections).updates) == 4
        several.append(counted["waits"])
    assert several[1] == several[2]


def test_waiting_is_noticed(device: torch.device) -> None:
    numbers = torch.ones(3, device=device)
    with waits(device) as counted:
        for _ in range(4):
            float(numbers.sum())
    assert counted["waits"] == 4


class Remote:
    """A tensor that notes how it is moved."""

    def __init__(self, kind: str = "cpu") -> None:
        self.device, self.ways = torch.device(kind), [kind]

    def pin_memory(self) -> Remote:
        self.ways.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Remote:
        self.ways.append(f"{device.type}{' meanwhile' if non_blocking else ''}")
        return self

    def __len__(self) -> int:
        return 1


def test_batches_go_to_a_gpu_by_pinned_memory_while_it_computes() -> None:
    def ways(device: str, kind: str = "cpu") -> list[str]:
        one, several = Remote(kind), Batch(Remote(kind), Remote(kind))  # type: ignore[arg-type]
        moved(one, torch.device(device)), moved(several, torch.device(device))  # type: ignore[arg-type]
        first, second = (each.ways for each in several)  # type: ignore[attr-defined]
        assert one.ways == first == second
        return one.ways

    assert ways("cpu") == ["cpu", "cpu"]
    assert ways("cuda") == ["cpu", "pinned", "cuda meanwhile"]
    assert ways("cuda", "cuda") == ["cuda", "cuda meanwhile"]
