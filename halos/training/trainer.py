"""One worker's inner loop: local steps of the model on its samples, in flat buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, Optional, TypeAlias

import torch

from halos.data.batch import moved
from halos.errors import ConfigError, Diverged, UserError, under
from halos.models import Model
from halos.models.building import named, trained
from halos.seeds import drawing, seed_for
from halos.training import Prediction
from halos.training.compiling import Forward, compile_now, compiled
from halos.training.inner_states import SHARED, InnerStates, WorkerState
from halos.training.kept import Kept, State
from halos.training.look import look
from halos.training.losses import Losses
from halos.training.options import TrainOptions
from halos.training.pages import give_back
from halos.training.scales import Scaled, Scales
from halos.values.params import Layout, Params

Metrics: TypeAlias = "Callable[[torch.nn.Module, Any], dict[str, Any]]"  # of a batch, as a model's own
Logits: TypeAlias = "Callable[[torch.nn.Module, Any], torch.Tensor]"  # likewise
LEAST_SCALE = 2.0**-14  # fp16's smallest normal number; a loss scaled by less has no gradients left in it


class Trainer:
    """Runs local steps of any worker on one device.

    The module's parameters and gradients are views into two flat buffers, so that starting from
    given parameters is one copy, finishing one clone, and the optimizer a few kernels over vectors instead of a loop
    over tensors.
    """

    def __init__(self, module: torch.nn.Module, options: TrainOptions, device: torch.device, seed: int = 0) -> None:
        """Take `module` over, its draws to follow from `seed`. Raises UserError for parameters that it cannot train."""
        self._trained = parameters = trained(module)
        dtype = next(iter(parameters.values())).dtype
        if options.precision == "fp16" and dtype == torch.float16:
            raise UserError(
                "its parameters are torch.float16; train.precision=fp16 takes them in fp32, and computes in fp16"
            )
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_meta:
                raise UserError(f"{name} is on the meta device, where it has no numbers; build it on the CPU")
        self.module = module.to(device).train()
        self.options = options
        self.device = device
        self.seed = seed
        self.kept = Kept(self.module)
        self.layout = Layout({name: tuple(tensor.shape) for name, tensor in parameters.items()}, dtype)
        self.flat = torch.empty(self.layout.size, dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.flat)
        for name, parameter in parameters.items():
            self.flat[self.layout.slice_of(name)] = parameter.detach().reshape(-1)
            parameter.grad = self.grad[self.layout.slice_of(name)].view(parameter.shape)
        self._forward: Forward = compiled(self.module, device) if options.compile else self.module
        self._lie_in(self.flat)
        self._scaled: Any = Scaled(self.flat, self.grad, self._step, hasattr(options.optimizer, "step_unless"))
        self.states = InnerStates(options, self.layout, self.kept, device)

    def initial(self) -> Params:
        """Return the module's parameters as it was built, copied; called before any training."""
        return Params(self.layout, self.flat.detach().clone())

    def look(self, model: Model, batches: Iterator[torch.Tensor]) -> None:
        """Compare the module that `model` made with what is assumed of it (see look.py); it is left as it was."""
        first = moved(next(batches), self.device)
        all_of_them = chain([first], (moved(batch, self.device) for batch in batches))
        with self._as({}, "look"):
            look(model, self.module, all_of_them, self.precision())
            if self.options.compile:
                with under("model"), named(model):
                    compile_now(self._forward, first, self.precision())
            self.kept.take()  # which says if what is frozen was changed
        self._refuse_moved()
        self.grad.zero_()

    def second_moments(self, worker: int) -> Optional[Params]:
        """Return the mean squared gradients that a worker's optimizer keeps, copied; None where there are none yet."""
        mine, own = self.states.known(worker), getattr(self.options.optimizer, "second_moments", None)
        found = None if own is None or mine is None or mine.moments is None else own(mine.moments)
        return None if found is None else Params(self.layout, found)

    def train(
        self,
        worker: int,
        start: Params,
        steps: int,
        lr_step: int,
        batches: Iterator[torch.Tensor],
        time: float,
        job: int = 0,
        into: Optional[torch.Tensor] = None,
    ) -> tuple[Params, tuple[float, ...], tuple[int, ...], float]:
        """Train `steps` local steps from `start`, `batches` giving micro-batches [micro, length + 1].

        Returns the parameters after them (trained in the vector `into` if there is one), losses averaged over chunks of
        so many steps each, and over all steps.
        `lr_step` counts the learning-rate steps before the first; `job` is the job's number, from which
        draws follow; `time` (virtual seconds of its start) is for messages only. Raises Diverged for a
        loss that is not finite, or fp16 gradients that are not at any scale.
        """
        schedule, lr_max = self.options.schedule, self.options.optimizer.lr
        where = self.of_step(worker, steps, lr_step, time)
        state, losses = self.states.of(worker), Losses(steps, self.device)
        scales = Scales(state.scaler, self.device)
        with self._lying_in(into), self._as(state.kept, "job", worker, job):
            self.flat.copy_(_data(start))
            self.grad.zero_()
            state.moments = self.states.moments(state)
            if begin := getattr(self.options.optimizer, "begin", None):
                begin(self.flat, state.moments)
            for step in range(1, steps + 1):
                losses.add(self._backward(batches, state.scaler))
                self._descend(state, schedule.at(lr_max, lr_step + step))
                scales.note()
            state.kept = self.kept.take()
        for step, scale in scales.lowered():
            self._skip(1, scale, losses, where, step)
        flat = self.flat.detach().clone() if into is None else into
        return Params(self.layout, flat), *losses.averaged(self.options.loss_average_steps, where)

    def gradient(
        self,
        worker: int,
        start: Params,
        steps: int,
        batches: Iterator[torch.Tensor],
        time: float,
        job: int = 0,
        into: Optional[torch.Tensor] = None,
    ) -> tuple[Params, tuple[float, ...], tuple[int, ...], float]:
        """Return the loss's gradient at `start`, the mean over `steps` batches, and losses; otherwise as `train`."""
        where = self.of_batch(worker, steps, time)
        state, losses = self.states.of(worker), Losses(steps, self.device)
        with self._lying_in(into), self._as(state.kept, "job", worker, job):
            self.flat.copy_(_data(start))
            self.grad.zero_()
            for _ in range(steps):
                losses.add(self._backward(batches, state.scaler))
            state.kept = self.kept.take()
        averaged = losses.averaged(self.options.loss_average_steps, where)
        if state.scaler.is_enabled():
            scales = Scales(state.scaler, self.device)
            state.scaler.unscale_(self._scaled)
            state.scaler.update()
            scales.note()
            for _, scale in scales.lowered():
                self._skip(steps, scale, losses, where, steps)
        return Params(self.layout, torch.div(self.grad, steps, out=into)), *averaged

    def of_step(self, worker: int, steps: int, lr_step: int, time: float) -> Callable[[int], str]:
        """Return what says, in messages, which of a job's local steps it is about."""
        schedule, lr_max = self.options.schedule, self.options.optimizer.lr
        return lambda step: (
            f"worker {worker}, local step {step} of {steps} in the job started at {time:.6g} simulated seconds"
            f" (learning-rate step {lr_step + step}, lr {schedule.at(lr_max, lr_step + step):.3g})"
        )

    def of_batch(self, worker: int, steps: int, time: float) -> Callable[[int], str]:
        """Return the same of the batches of a gradient."""
        return lambda step: (
            f"worker {worker}, batch {step} of {steps} of a gradient asked for at {time:.6g} simulated seconds"
        )

    def step(self, params: Params, gradient: Params, lr_step: int) -> Params:
        """Return `params` after one clipped optimizer step along `gradient`; the state is no worker's."""
        state = self.states.of(SHARED)
        self.flat.copy_(_data(params))
        self.grad.copy_(_data(gradient))
        if state.scaler.is_enabled() and not bool(torch.isfinite(self.grad).all()):
            return Params(self.layout, self.flat.detach().clone())  # a scale too large, lowered by now: no step
        state.moments = self.states.moments(state, job=False)
        self._descend(state, self.options.schedule.at(self.options.optimizer.lr, lr_step + 1), scaled=False)
        return Params(self.layout, self.flat.detach().clone())

    def evaluate(
        self, params: Params, batches: Iterator[torch.Tensor], metrics: Optional[Metrics] = None
    ) -> dict[str, float]:
        """Return means over all samples of `batches`: the `loss` of `params`, and what `metrics` are of each batch.

        The workers' states are left alone. The module has the mean of the buffers of all workers that were trained.
        """
        precision = self.precision()
        self.flat.copy_(_data(params))
        totals: dict[str, torch.Tensor] = {}
        samples = 0
        self.module.eval()
        with torch.no_grad(), self._as(self._mean(), "evaluation"):
            for batch in batches:
                here = moved(batch, self.device)
                with precision():
                    found = {} if metrics is None else metrics(self.module, here)
                    if "loss" not in found:
                        found = {"loss": self.module(here), **found}
                for name, value in found.items():
                    weighed = torch.as_tensor(value, device=self.device).double() * len(batch)
                    totals[name] = totals[name] + weighed if name in totals else weighed
                samples += len(batch)
        self.module.train()
        return {name: float(total) / samples for name, total in totals.items()}

    def predict(self, params: Params, batch: torch.Tensor, logits: Optional[Logits] = None) -> Prediction:
        """Return what `params` make of a batch, as in `evaluate`; `logits` gives the module's, if anybody does."""
        self.flat.copy_(_data(params))
        precision, here = self.precision(), moved(batch, self.device)
        self.module.eval()
        with torch.no_grad(), self._as(self._mean(), "evaluation"), precision():
            loss = float(self.module(here))
            made = None if logits is None else logits(self.module, here).flatten(0, -2)
        self.module.train()
        return Prediction(len(batch), loss, made)

    def slope(self, params: Params, batches: Iterator[torch.Tensor]) -> Params:
        """Return the gradient at `params` of the mean loss over all samples of `batches`, in evaluation mode.

        In the parameters' own precision: in half of it, little is left of a small difference of two such gradients.
        """
        self.flat.copy_(_data(params))
        self.grad.zero_()
        samples = 0
        self.module.eval()
        with self._as(self._mean(), "evaluation"):
            for batch in batches:
                (self.module(moved(batch, self.device)) * len(batch)).backward()
                samples += len(batch)
        self.module.train()
        return Params(self.layout, self.grad / samples)

    def whole(self, params: Params) -> dict[str, torch.Tensor]:
        """Return the module's state dict at `params`, copied to the CPU, with buffers as in evaluations."""
        self.flat.copy_(_data(params))
        self.kept.put(self._mean())
        state = self.module.state_dict()
        return {name: value.cpu().clone() for name, value in state.items() if isinstance(value, torch.Tensor)}

    def _lie_in(self, flat: torch.Tensor) -> None:
        """Let the module's parameters lie in that vector from now on."""
        self.flat = flat
        for name, parameter in self._trained.items():
            parameter.data = flat[self.layout.slice_of(name)].view(parameter.shape)

    @contextmanager
    def _lying_in(self, flat: Optional[torch.Tensor]) -> Iterator[None]:
        """For the body, let the module's parameters lie in that vector, if there is one."""
        mine = self.flat
        if flat is not None:
            self._lie_in(flat)
        try:
            yield
        finally:
            if flat is not None:
                self._lie_in(mine)

    def rest(self) -> None:
        """Let both buffers take no memory until somebody is trained or evaluated: nothing in them is needed before."""
        give_back(self.flat)
        give_back(self.grad)

    def _refuse_moved(self) -> None:
        """Raise ConfigError if the module gave a parameter, or its gradient, other memory: it would not be trained."""
        for name, parameter in self._trained.items():
            piece, grad = self.layout.slice_of(name), parameter.grad
            here = (self.flat[piece].data_ptr(), self.grad[piece].data_ptr())
            if grad is None or (parameter.data_ptr(), grad.data_ptr()) != here:
                raise ConfigError("model", f"gives {name} or its gradient other memory (.data =, .grad =); use copy_()")

    def _mean(self) -> State:
        """The buffers of no worker: the mean over those that were trained."""
        return self.kept.mean(self.states.buffers())

    @contextmanager
    def _as(self, kept: State, purpose: str, *ids: int) -> Iterator[None]:
        """The module with these buffers, and whatever it draws seeded by what for, and for whom."""
        self.kept.put(kept)
        seed = seed_for(self.seed, f"draws of a {purpose}", *ids)
        for index, generator in enumerate(self.kept.generators):
            generator.manual_seed(seed + index)
        with drawing(seed, self.device):
            yield

    def _skip(self, steps: int, scale: float, losses: Losses, where: Callable[[int], str], step: int) -> None:
        """Count steps left out by fp16's loss scaling. Raises Diverged if no scale is left that could help."""
        self.states.skipped += steps
        if scale < LEAST_SCALE:
            losses.check(where, step)  # rather that, if it was the loss
            raise Diverged(
                f"fp16 gradients are not finite at any loss scale, and it fell to {scale:.3g}: {where(step)}"
            )

    def _backward(self, batches: Iterator[torch.Tensor], scaler: torch.amp.GradScaler) -> torch.Tensor:
        """Add one batch's gradient to `grad`, micro-batch by micro-batch; return its loss, a scalar tensor."""
        accumulation, precision = self.options.batch_size // self.options.micro, self.precision()
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        for _ in range(accumulation):
            with precision():
                loss = self._forward(moved(next(batches), self.device)) / accumulation
            scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _descend(self, state: WorkerState, lr: float, scaled: bool = True) -> None:
        """Take one optimizer step along `grad`, clipped; `grad` is zero afterwards.

        It is not taken if `grad` was too large for fp16, which the loss scale then tells.
        """
        scaler = state.scaler
        if scaled:
            scaler.unscale_(self._scaled)
        if self.options.clip > 0.0:
            clip(self.grad, self.options.clip)
        if scaled and scaler.is_enabled():
            scaler.step(self._scaled, state, lr)
            scaler.update()
        else:
            self._step(state, lr)
        self.grad.zero_()

    def _step(self, state: WorkerState, lr: float, infinite: Optional[torch.Tensor] = None) -> None:
        optimizer: Any = self.options.optimizer
        if infinite is None:
            optimizer.step(self.flat, self.grad, state.moments, lr, self.layout)
        else:
            optimizer.step_unless(self.flat, self.grad, state.moments, lr, self.layout, infinite)

    def precision(self) -> Callable[[], AbstractContextManager[Any]]:
        """Return what makes a context in which the module computes in the precision that is configured."""
        if self.options.precision == "fp32":
            return nullcontext
        dtype = torch.bfloat16 if self.options.precision == "bf16" else torch.float16
        return lambda: torch.autocast(self.device.type, dtype=dtype)


def clip(grad: torch.Tensor, most: float) -> None:
    """Scale a vector down to norm `most` if its norm is above; on its device, without waiting for a number."""
    norm = torch.linalg.vector_norm(grad)
    grad.mul_(torch.clamp(most / (norm + 1e-6), max=1.0))


def _data(params: Params) -> torch.Tensor:
    if params.flat is None:
        raise ValueError("hollow parameters cannot be trained or evaluated")
    return params.flat
