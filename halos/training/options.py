"""The inner loop as configured: batches, learning-rate schedule, precision, and which optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Optional

from halos.errors import ConfigError, require
from halos.training.optimizers import AdamW, InnerOptimizer

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass
class ScheduleOptions:
    """The inner learning rate over learning-rate steps: up in a straight line, and down in one of several ways.

    `warmup_cosine`: by half a cosine; `linear`: in a straight line; `warmup_stable_decay` (arXiv 2404.06395): in a
    straight line too, but only at the end; `constant`: never down nor up.
    """

    name: Literal["warmup_cosine", "constant", "linear", "warmup_stable_decay"] = "warmup_cosine"  # how it goes
    warmup: int = 30  # learning-rate steps up to the largest rate; 0: none
    total: int = 600  # learning-rate steps down to the smallest rate, which then stays
    min_ratio: float = 0.1  # the smallest rate, as a fraction of the largest
    decay: Optional[int] = None  # of warmup_stable_decay, the last of `total` that lead down; null: a tenth of them

    def __post_init__(self) -> None:
        require(self.warmup >= 0, "warmup", self.warmup, "zero or a positive number of steps")
        require(self.total >= 1, "total", self.total, "a positive number of steps")
        require(0.0 <= self.min_ratio <= 1.0, "min_ratio", self.min_ratio, "in [0, 1]")
        require(self.decay is None or self.decay >= 1, "decay", self.decay, "a positive number of steps, or null")
        if self.name != "constant":
            require(self.warmup <= self.total, "warmup", self.warmup, f"at most total ({self.total})")
        if self.name == "warmup_stable_decay":
            left = self.total - self.warmup
            require(self._down <= left, "decay", self._down, f"at most total without warmup ({left})")

    @property
    def _down(self) -> int:
        """Learning-rate steps that lead down."""
        if self.name == "warmup_stable_decay":
            return max(1, self.total // 10) if self.decay is None else self.decay
        return self.total - self.warmup

    def at(self, lr: float, step: int) -> float:
        """Return the learning rate of learning-rate step `step` (the first is 1), for the maximum `lr`."""
        if self.name == "constant":
            return lr
        if step <= self.warmup:
            return lr * step / self.warmup
        low = self.min_ratio * lr
        if step >= self.total:
            return low
        progress = max(0.0, (step - (self.total - self._down)) / self._down)
        if self.name == "warmup_cosine":
            return low + (lr - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
        return low + (lr - low) * (1.0 - progress)


@dataclass
class TrainOptions:
    """A worker's inner loop, the same for all."""

    batch_size: int = 16  # samples per local step
    # Samples per forward and backward pass; divides `batch_size`. null: all at once.
    micro_batch_size: Optional[int] = None
    # Samples per learning-rate step: a job's first one is (samples dispatched so far) // this. null: workers ·
    # `batch_size`.
    global_batch_size: Optional[int] = None
    optimizer: InnerOptimizer = field(default_factory=AdamW)  # the inner one, of which every worker has a state
    # What a job begins with: `kept`, the state in which its worker's last one ended, or `new`, as before a first one.
    # Learning rates go on, and so do fp16's loss scale and the model's buffers.
    optimizer_state: Literal["kept", "new"] = "kept"
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)  # of the inner learning rate
    clip: float = 1.0  # largest norm of a step's gradient; 0: not clipped
    precision: str = "fp32"  # or `bf16`, `fp16` (autocast; fp16 with a loss scaler per worker)
    # Compile forward and backward (torch.compile; not of evaluations): steps are faster after a minute or so, losses
    # differ in their last digits, and a module that draws (dropout) draws other numbers.
    compile: bool = False
    loss_average_steps: int = 8  # a job reports its loss as means over so many steps, and the rest

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", self.batch_size, "a positive number of samples")
        require(self.batch_size <= 1_000_000_000, "batch_size", self.batch_size, "at most 1,000,000,000 samples")
        micro = self.batch_size if self.micro_batch_size is None else self.micro_batch_size
        if micro < 1 or self.batch_size % micro:
            raise ConfigError("micro_batch_size", f"{micro} does not divide batch_size {self.batch_size}")
        if self.global_batch_size is not None:
            require(
                self.global_batch_size >= 1, "global_batch_size", self.global_batch_size, "a positive number of samples"
            )
        require(0.0 <= self.clip < math.inf, "clip", self.clip, "zero or a positive, finite number")
        require(self.precision in PRECISIONS, "precision", self.precision, "one of " + ", ".join(PRECISIONS))
        require(
            self.loss_average_steps >= 1, "loss_average_steps", self.loss_average_steps, "a positive number of steps"
        )

    @property
    def micro(self) -> int:
        """Samples per forward and backward pass."""
        return self.batch_size if self.micro_batch_size is None else self.micro_batch_size
