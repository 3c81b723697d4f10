"""One worker's inner loop: local steps of the model on its samples, in flat buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from halos.errors import Diverged
from halos.training.options import TrainOptions
from halos.values.params import Layout, Params

MOMENTS = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}
SHARED = -1  # the worker number of the state that is no worker's


class Losses:
    """Training losses, averaged over chunks of `every` local steps (and what is left at the end)."""

    def __init__(self, every: int, device: torch.device) -> None:
        self.means: list[float] = []
        self.chunks: list[int] = []
        self._every = every
        self._sum = torch.zeros((), dtype=torch.float32, device=device)
        self._count = 0

    @property
    def due(self) -> bool:
        return self._count == self._every

    def add(self, loss: torch.Tensor) -> None:
        """Add the loss of one more step, a scalar tensor; it stays on its device."""
        self._sum += loss
        self._count += 1

    def close(self, where: str) -> None:
        """Average what was added. Raises Diverged, saying `where`, if it is not finite."""
        self.means.append(float(self._sum) / self._count)
        self.chunks.append(self._count)
        self._sum.zero_()
        self._count = 0
        if not math.isfinite(self.means[-1]):
            raise Diverged(f"training loss became {self.means[-1]}: {where}")


class WorkerState:
    """The state that a worker keeps from job to job and never sends: optimizer moments, and fp16's loss scale."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        self.optimizer = optimizer
        self.scaler = scaler


class Trainer:
    """Runs local steps of any worker on one device.

    The module's parameters and gradients are views into two flat buffers, so that starting from
    given parameters is one copy, finishing one clone, and the optimizer a few kernels over two
    vectors (decayed or not) instead of a loop over tensors.
    """

    def __init__(self, module: torch.nn.Module, options: TrainOptions, device: torch.device) -> None:
        self.module = module.to(device).train()
        self.options = options
        self.device = device
        named = dict(self.module.named_parameters())
        dtype = next(iter(named.values())).dtype
        self.layout = Layout({name: tuple(tensor.shape) for name, tensor in named.items()}, dtype)
        self.flat = torch.empty(self.layout.size, dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.flat)
        for name, parameter in named.items():
            piece, shape = self.layout.slice_of(name), parameter.shape
            self.flat[piece] = parameter.detach().reshape(-1)
            parameter.data = self.flat[piece].view(shape)
            parameter.grad = self.grad[piece].view(shape)
        self._groups = []  # the same memory as two vectors: with and without weight decay
        for piece, decay in (
            (slice(0, self.layout.decayed), options.optimizer.weight_decay),
            (slice(self.layout.decayed, self.layout.size), 0.0),
        ):
            if piece.stop > piece.start:
                vector = torch.nn.Parameter(self.flat[piece])
                vector.grad = self.grad[piece]
                self._groups.append({"params": [vector], "weight_decay": decay})
        self._states: dict[int, WorkerState] = {}

    def initial(self) -> Params:
        """Return the module's parameters as it was built, copied; called before any training."""
        return Params(self.layout, self.flat.detach().clone())

    def state_of(self, worker: int) -> WorkerState:
        """Return a worker's own state, made at its first job."""
        if worker not in self._states:
            scaler = torch.amp.GradScaler(self.device.type, enabled=self.options.precision == "fp16")
            self._states[worker] = WorkerState(self._optimizer(), scaler)
        return self._states[worker]

    def state(self) -> dict[str, Any]:
        """Return the states of all workers that had a job, by worker, in plain values and tensors (not copied)."""
        return {
            str(worker): {"optimizer": own.optimizer.state_dict(), "scaler": own.scaler.state_dict()}
            for worker, own in self._states.items()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned. Raises ValueError if it is not of this model and optimizer."""
        for worker, saved in state.items():
            mine = self.state_of(int(worker))
            moments, options = saved["optimizer"]["state"], mine.optimizer.state_dict()["param_groups"]
            check_moments(moments, mine.optimizer, MOMENTS[self.options.optimizer.name])
            mine.optimizer.load_state_dict({"state": moments, "param_groups": options})  # options: as configured
            if not all(isinstance(value, (int, float)) for value in saved["scaler"].values()):
                raise ValueError("a loss scale that is no number")
            mine.scaler.load_state_dict(saved["scaler"])

    def forget(self, worker: int) -> None:
        """Forget the worker's state; its next job begins with a new one."""
        self._states.pop(worker, None)

    def train(
        self, worker: int, start: Params, steps: int, lr_step: int, batches: Iterator[torch.Tensor], time: float
    ) -> tuple[Params, tuple[float, ...], tuple[int, ...]]:
        """Train `steps` local steps from `start`, `batches` giving micro-batches [micro, length + 1].

        Returns the parameters after them, and losses averaged over chunks of so many steps each.
        `lr_step` counts the learning-rate steps before the first; `time` (virtual seconds of the
        job's start) is for messages only. Raises Diverged for a loss that is not finite.
        """
        schedule, lr_max = self.options.schedule, self.options.optimizer.lr
        state, losses = self.state_of(worker), Losses(self.options.loss_average_steps, self.device)
        self.flat.copy_(_data(start))
        self.grad.zero_()
        for step in range(1, steps + 1):
            lr = schedule.at(lr_max, lr_step + step)
            losses.add(self._backward(batches, state.scaler))
            self._descend(state, lr)
            if losses.due or step == steps:
                losses.close(
                    f"worker {worker}, local step {step} of {steps} in the job started at {time:.6g} simulated seconds"
                    f" (learning-rate step {lr_step + step}, lr {lr:.3g})"
                )
        return Params(self.layout, self.flat.detach().clone()), tuple(losses.means), tuple(losses.chunks)

    def gradient(
        self, worker: int, start: Params, steps: int, batches: Iterator[torch.Tensor], time: float
    ) -> tuple[Params, tuple[float, ...], tuple[int, ...]]:
        """Return the loss's gradient at `start`, the mean over `steps` batches, and losses; otherwise as `train`."""
        state, losses = self.state_of(worker), Losses(self.options.loss_average_steps, self.device)
        self.flat.copy_(_data(start))
        self.grad.zero_()
        for step in range(1, steps + 1):
            losses.add(self._backward(batches, state.scaler))
            if losses.due or step == steps:
                losses.close(
                    f"worker {worker}, batch {step} of {steps} of a gradient asked for at {time:.6g} simulated seconds"
                )
        if state.scaler.is_enabled():
            state.scaler.unscale_(state.optimizer)
            state.scaler.update()
        return Params(self.layout, self.grad / steps), tuple(losses.means), tuple(losses.chunks)

    def step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        """Return `params` after one clipped optimizer step along `gradient`; the state is no worker's."""
        state = self.state_of(SHARED)
        self.flat.copy_(_data(params))
        self.grad.copy_(_data(gradient))
        if state.scaler.is_enabled() and not bool(torch.isfinite(self.grad).all()):
            return Params(self.layout, self.flat.detach().clone())  # a scale too large, lowered by now: no step
        self._descend(state, self.options.schedule.at(self.options.optimizer.lr, lr_step + 1), scaled=False)
        return Params(self.layout, self.flat.detach().clone())

    def evaluate(self, params: Params, batches: Iterator[torch.Tensor]) -> float:
        """Return the mean loss of `params` over all samples of `batches`; the workers' states are left alone."""
        precision = self._precision()
        self.flat.copy_(_data(params))
        total, samples = torch.zeros((), dtype=torch.float64, device=self.device), 0
        self.module.eval()
        with torch.no_grad():
            for batch in batches:
                with precision():
                    total += self.module(batch.to(self.device)).double() * len(batch)
                samples += len(batch)
        self.module.train()
        return float(total) / samples

    def _backward(self, batches: Iterator[torch.Tensor], scaler: torch.amp.GradScaler) -> torch.Tensor:
        """Add one batch's gradient to `grad`, micro-batch by micro-batch; return its loss, a scalar tensor."""
        accumulation, precision = self.options.batch_size // self.options.micro, self._precision()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        for _ in range(accumulation):
            with precision():
                loss = self.module(next(batches).to(self.device)) / accumulation
            scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _descend(self, state: WorkerState, lr: float, scaled: bool = True) -> None:
        """Take one optimizer step along `grad`, clipped; `grad` is zero afterwards."""
        optimizer, scaler = state.optimizer, state.scaler
        for group in optimizer.param_groups:
            group["lr"] = lr
        if self.options.clip > 0.0:
            if scaled:
                scaler.unscale_(optimizer)
            norm = torch.linalg.vector_norm(self.grad)
            self.grad.mul_(torch.clamp(self.options.clip / (norm + 1e-6), max=1.0))
        if scaled:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        self.grad.zero_()

    def _optimizer(self) -> torch.optim.Optimizer:
        options = self.options.optimizer
        groups: list[dict[str, Any]] = [dict(group) for group in self._groups]
        if options.name == "sgd":
            return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
        return torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)

    def _precision(self) -> Callable[[], AbstractContextManager[Any]]:
        if self.options.precision == "fp32":
            return nullcontext
        dtype = torch.bfloat16 if self.options.precision == "bf16" else torch.float16
        return lambda: torch.autocast(self.device.type, dtype=dtype)


def _data(params: Params) -> torch.Tensor:
    if params.flat is None:
        raise ValueError("hollow parameters cannot be trained or evaluated")
    return params.flat


def check_moments(state: dict[int, dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer, names: set[str]) -> None:
    """Raise ValueError unless saved moments are as large as their parameters: kernels would go beyond the end."""
    for index, moments in state.items():
        (vector,) = optimizer.param_groups[index]["params"]
        if moments and set(moments) != names:
            raise ValueError(f"{', '.join(moments)} of another optimizer")
        for name, tensor in moments.items():
            size = 1 if name == "step" else len(vector)
            if type(tensor) is not torch.Tensor or tensor.layout != torch.strided or tensor.numel() != size:
                raise ValueError(f"{name} is no vector of {size}")
