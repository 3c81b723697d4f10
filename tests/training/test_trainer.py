"""One worker's inner loop: schedules by hand, and arithmetic against PyTorch's own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from halos.errors import Diverged, UserError
from halos.models.gpt_neox import GPTNeoX
from halos.models.toy import Quadratic
from halos.training.optimizers import SGD, AdamW
from halos.training.options import ScheduleOptions, TrainOptions
from halos.training.trainer import Trainer
from halos.values.params import Params

TINY = GPTNeoX(hidden_size=16, layers=2, heads=2)
CPU = torch.device("cpu")
STEADY = ScheduleOptions(name="constant")


def batches(size: int, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(32, (size, 9), generator=generator)


def trainer(device: torch.device = CPU, **options: object) -> Trainer:
    return Trainer(TINY.build(32, 0), TrainOptions(**options), device)  # type: ignore[arg-type]


def flat(params: Params) -> Tensor:
    assert params.flat is not None
    return params.flat


def test_a_module_without_numbers_is_refused_by_name() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("mean", torch.zeros(2, device="meta"))
    with pytest.raises(UserError, match=r"^mean is on the meta device, where it has no numbers; build it on the CPU$"):
        Trainer(module, TrainOptions(), CPU)


def test_sgd_on_a_quadratic_by_hand() -> None:
    options = TrainOptions(batch_size=1, optimizer=SGD(lr=0.5), schedule=STEADY, clip=0.0)
    model = Quadratic(size=1, optimum=1.0, dtype="float64").build(None, 0)
    one = Trainer(model, options, CPU)
    params, losses, chunks, loss = one.train(0, one.initial(), 3, 0, batches(1), 0.0)
    assert flat(params).tolist() == [1 - 0.5**3]
    assert (losses, chunks, loss) == (((0.5 + 0.125 + 0.03125) / 3,), (3,), (0.5 + 0.125 + 0.03125) / 3)


def test_losses_are_averaged_over_chunks_and_the_remainder() -> None:
    options = TrainOptions(batch_size=1, optimizer=SGD(lr=0.5), schedule=STEADY, clip=0.0, loss_average_steps=2)
    one = Trainer(Quadratic(size=1, dtype="float64").build(None, 0), options, CPU)
    _, losses, chunks, loss = one.train(0, one.initial(), 5, 0, batches(1), 0.0)
    halves = [0.5 * 0.25**step for step in range(5)]
    assert chunks == (2, 2, 1)
    assert losses == pytest.approx([sum(halves[:2]) / 2, sum(halves[2:4]) / 2, halves[4]])
    assert loss == sum(halves) / 5  # powers of two: exact


@pytest.mark.parametrize("every", [1, 2, 8])
def test_whether_training_diverges_and_at_which_step_is_no_matter_of_how_losses_are_averaged(every: int) -> None:
    options = TrainOptions(
        batch_size=1, optimizer=SGD(lr=2e19), schedule=STEADY, clip=0.0,
        loss_average_steps=every,
    )  # fmt: skip
    one = Trainer(Quadratic(size=1, dtype="float64").build(None, 0), options, CPU)
    # From 0, with the optimum at 1: step 1 leads to 2e19, a loss of 2e38, and step 2 to −4e38, beyond fp32 squared.
    start = one.initial()
    _, _, _, loss = one.train(0, start, 2, 0, batches(1), 0.0)
    assert loss == pytest.approx(1e38)  # the mean of ½ and 2e38; as a sum, four such would be more than fp32 holds
    with pytest.raises(Diverged, match=r"became inf: worker 0, local step 3 of 4 in the job started at 0 simulated"):
        one.train(0, start, 4, 0, batches(1), 0.0)


def test_flat_buffers_train_like_tensors_one_by_one_under_fused_adamw_and_clipping() -> None:
    one = trainer(batch_size=4, clip=0.5, schedule=ScheduleOptions(warmup=2, total=8))
    params, _, _, _ = one.train(0, one.initial(), 8, 0, batches(4), 0.0)
    module = TINY.build(32, 0)
    several = list(module.parameters())
    groups = [
        {"params": [each for each in several if each.dim() >= 2], "weight_decay": 0.1},
        {"params": [each for each in several if each.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    stream = batches(4)
    for step in range(1, 9):
        for group in optimizer.param_groups:
            group["lr"] = ScheduleOptions(warmup=2, total=8).at(1e-3, step)
        optimizer.zero_grad()
        module(next(stream)).backward()
        torch.nn.utils.clip_grad_norm_(several, 0.5)
        optimizer.step()
    theirs = torch.cat([dict(module.named_parameters())[name].detach().reshape(-1) for name in params.layout.shapes])
    assert torch.linalg.vector_norm(flat(params) - theirs) / torch.linalg.vector_norm(theirs) < 1e-5


def test_gradient_accumulation_equals_the_large_batch() -> None:
    whole, parts = trainer(batch_size=8), trainer(batch_size=8, micro_batch_size=2)
    stream = list(zip(range(3), batches(8)))
    large = (batch for _, batch in stream)
    small = (piece for _, batch in stream for piece in batch.split(2))
    a, loss_a, _, _ = whole.train(0, whole.initial(), 3, 0, large, 0.0)
    b, loss_b, _, _ = parts.train(0, parts.initial(), 3, 0, small, 0.0)
    torch.testing.assert_close(flat(a), flat(b), rtol=1e-4, atol=2e-5)
    assert loss_a == pytest.approx(loss_b, rel=1e-5)


def test_a_workers_optimizer_lives_on_and_is_its_own() -> None:
    one = trainer(batch_size=2)
    start = one.initial()
    first, _, _, _ = one.train(0, start, 4, 0, batches(2), 0.0)
    again, _, _, _ = one.train(0, start, 4, 0, batches(2), 0.0)  # the same job, with moments from the first
    other, _, _, _ = one.train(1, start, 4, 0, batches(2), 0.0)  # the same job, for somebody new
    assert not torch.equal(flat(first), flat(again))
    assert torch.equal(flat(first), flat(other))


def test_training_and_evaluating_leave_the_given_parameters_alone() -> None:
    one = trainer(batch_size=2)
    start = one.initial()
    kept = flat(start).clone()
    trained, _, _, _ = one.train(0, start, 2, 0, batches(2), 0.0)
    loss = one.evaluate(start, iter([next(batches(2))]))["loss"]
    assert torch.equal(flat(start), kept)
    assert not torch.equal(flat(trained), kept)
    assert loss == pytest.approx(math.log(32), abs=0.2)


def test_evaluation_is_the_mean_over_samples_whatever_the_batches() -> None:
    one = trainer(batch_size=2)
    batch = next(batches(7))
    whole = one.evaluate(one.initial(), iter([batch]))
    assert one.evaluate(one.initial(), iter(batch.split(3))) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_almost_alike(precision: str) -> None:
    full, low = trainer(batch_size=4, schedule=STEADY), trainer(batch_size=4, schedule=STEADY, precision=precision)
    _, theirs, _, _ = full.train(0, full.initial(), 16, 0, batches(4), 0.0)
    params, ours, _, _ = low.train(0, low.initial(), 16, 0, batches(4), 0.0)
    assert ours == pytest.approx(theirs, rel=0.02)
    assert flat(params).dtype == torch.float32


def test_a_loss_that_is_not_finite_names_worker_step_and_time() -> None:
    options = TrainOptions(batch_size=1, optimizer=SGD(lr=1e30), schedule=STEADY, clip=0.0)
    one = Trainer(Quadratic(size=1).build(None, 0), options, CPU)
    with pytest.raises(
        Diverged, match=r"became (inf|nan): worker 3, local step 2 of 9 in the job started at 12.5 simulated s"
    ):
        one.train(3, one.initial(), 9, 100, batches(1), 12.5)


# What a module has beside plain parameters


def of(module: nn.Module, **options: object) -> tuple[Trainer, Params]:
    """A trainer by plain SGD of rate 0.5 unless said otherwise, and the initial parameters."""
    sgd = {"batch_size": 2, "optimizer": SGD(lr=0.5), "schedule": STEADY, "clip": 0.0}
    one = Trainer(module, TrainOptions(**{**sgd, **options}), CPU)  # type: ignore[arg-type]
    return one, one.initial()


class Bowl(nn.Module):
    """½ (θ − 1)², and whatever is overridden."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Tensor) -> Tensor:
        return 0.5 * (self.theta - 1).square().sum()


class Normed(Bowl):
    """With a batch norm of the first token, momentum ½."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False, momentum=0.5)

    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch) + 0 * self.norm(batch[:, :1].float()).sum()


def tokens(*first: int) -> Iterator[Tensor]:
    """One batch again and again: of samples that begin with these tokens."""
    while True:
        yield torch.tensor(first)[:, None].expand(-1, 3)


def test_buffers_are_each_workers_own_and_their_mean_is_what_is_evaluated_and_saved() -> None:
    """Tokens 0, 2 have mean 1 and variance 2: two steps take 0 to ½ to ¾, and 1 to 1½ to 1¾. Tokens 4, 4: 2 and ½."""
    one, start = of(Normed())
    one.train(0, start, 2, 0, tokens(0, 2), 0.0)
    one.train(1, start, 1, 0, tokens(4, 4), 0.0)
    kept = [one.states.of(worker).kept for worker in (0, 1)]
    assert [float(each["norm.running_mean"]) for each in kept] == [0.75, 2.0]  # type: ignore[arg-type]
    assert [float(each["norm.running_var"]) for each in kept] == [1.75, 0.5]  # type: ignore[arg-type]
    assert [int(each["norm.num_batches_tracked"]) for each in kept] == [2, 1]  # type: ignore[arg-type]
    whole = one.whole(start)
    assert set(whole) == set(Normed().state_dict())
    assert (float(whole["norm.running_mean"]), float(whole["norm.running_var"])) == (1.375, 1.125)
    Normed().load_state_dict(whole)
    one.states.forget(1)
    assert float(one.whole(start)["norm.running_mean"]) == 0.75


def test_buffers_go_on_from_what_was_saved() -> None:
    one, start = of(Normed())
    one.train(3, start, 1, 0, tokens(0, 2), 0.0)
    other, _ = of(Normed())
    other.states.restore(one.states.state())
    other.train(3, start, 1, 0, tokens(0, 2), 0.0)
    assert float(other.states.of(3).kept["norm.running_mean"]) == 0.75  # type: ignore[arg-type]


class Drawing(Bowl):
    """The loss is what was drawn: by PyTorch, or by a generator of its own."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.generator = torch.Generator() if own else None

    def forward(self, batch: Tensor) -> Tensor:
        return torch.rand((), generator=self.generator) + 0 * self.theta.sum()


@pytest.mark.parametrize("own", [False, True])
def test_draws_follow_from_seed_worker_and_job_and_from_nothing_else(own: bool) -> None:
    def drawn(worker: int, job: int, seed: int = 0, before: int = 0) -> float:
        one = Trainer(Drawing(own), TrainOptions(batch_size=2), CPU, seed)
        start = one.initial()
        for other in range(before):
            one.train(9, start, 1, 0, tokens(1, 1), 0.0, 100 + other)
            torch.rand(3)
        return one.train(worker, start, 1, 0, tokens(1, 1), 0.0, job)[1][0]

    assert drawn(0, 5) == drawn(0, 5, before=2)
    assert len({drawn(0, 5), drawn(1, 5), drawn(0, 6), drawn(0, 5, seed=1)}) == 4


class Frozen(Bowl):
    """θ is pulled to a frozen tensor, [[1]], which weight decay would shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.goal = nn.Parameter(torch.ones(1, 1), requires_grad=False)

    def forward(self, batch: Tensor) -> Tensor:
        return 0.5 * (self.theta - self.goal).square().sum()


def test_a_frozen_parameter_is_neither_trained_nor_decayed_nor_sent_but_saved() -> None:
    one, start = of(Frozen(), optimizer=AdamW(lr=0.1, weight_decay=0.5))
    end, _, _, _ = one.train(0, start, 3, 0, tokens(1, 1), 0.0)
    assert end.layout.shapes == {"theta": (1,)} and end.size == 1
    assert one.whole(end)["goal"].tolist() == [[1.0]]


class Transposed(Bowl):
    """½ Σ (w − 1)² over a weight that is not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.arange(6.0).view(2, 3).t())

    def forward(self, batch: Tensor) -> Tensor:
        return 0.5 * (self.theta - 1).square().sum()


def test_a_parameter_that_is_not_contiguous_is_trained_as_any_other() -> None:
    one, start = of(Transposed(), optimizer=SGD(lr=0.5, weight_decay=0.0))
    end, _, _, _ = one.train(0, start, 1, 0, tokens(1, 1), 0.0)
    assert start.tensors()["theta"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert end.tensors()["theta"].tolist() == [[0.5, 2], [1, 2.5], [1.5, 3]]  # half-way to 1


class Tied(Bowl):
    """½ (u − 1)² + ½ (v − 3)², where u and v are one: the optimum is 2."""

    def __init__(self) -> None:
        super().__init__()
        self.other = self.theta

    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch) + 0.5 * (self.other - 3).square().sum()


def test_tied_parameters_are_one_and_saved_under_both_names() -> None:
    one, start = of(Tied())
    end, _, _, _ = one.train(0, start, 1, 0, tokens(1, 1), 0.0)
    assert end.size == 1 and flat(end).tolist() == [0.5 * (1 + 3)]
    assert {name: value.tolist() for name, value in one.whole(end).items()} == {"theta": [2.0], "other": [2.0]}


def test_a_module_in_bf16_is_trained_in_bf16() -> None:
    one, start = of(Bowl().bfloat16())
    end, _, _, _ = one.train(0, start, 2, 0, tokens(1, 1), 0.0)
    assert flat(end).dtype == torch.bfloat16 and flat(end).tolist() == [0.75]


def test_fp16_parameters_are_refused_where_fp16_is_what_is_computed_in() -> None:
    with pytest.raises(UserError, match=r"^its parameters are torch.float16; train.precision=fp16 takes them in fp32"):
        of(Bowl().half(), precision="fp16")


class Steep(Bowl):
    """10³⁵ θ: its gradient, scaled by 2¹⁶ to 2¹², is infinite in fp32; by 2¹¹ it is 2.05 · 10³⁸."""

    def forward(self, batch: Tensor) -> Tensor:
        return 1e35 * self.theta.sum()


def test_steps_that_fp16_skips_are_counted_and_the_count_goes_on() -> None:
    one, start = of(Steep(), precision="fp16", optimizer=SGD(lr=1e-35))
    end, _, _, _ = one.train(0, start, 7, 0, tokens(1, 1), 0.0)
    assert one.states.skipped == 5
    assert flat(end).tolist() == pytest.approx([-2.0])  # two steps of −1 were taken
    other, _ = of(Steep(), precision="fp16")
    other.states.restore(one.states.state())
    other.gradient(1, start, 2, tokens(1, 1), 0.0)  # another worker begins at 2¹⁶: both batches are lost
    assert other.states.skipped == 5 + 2


class Infinite(Bowl):
    """√θ at 0, whose gradient is infinite at any scale."""

    def forward(self, batch: Tensor) -> Tensor:
        return self.theta.sqrt().sum()


def test_a_loss_scale_that_has_become_useless_ends_the_run() -> None:
    """It is halved by each step that is skipped: 2¹⁶ falls below 2⁻¹⁴ with the 31st."""
    one, start = of(Infinite(), precision="fp16")
    one.train(2, start, 30, 0, tokens(1, 1), 0.0)
    with pytest.raises(
        Diverged, match=r"at any loss scale, and it fell to 3.05e-05: worker 2, local step 1 of 5 in the"
    ):
        one.train(2, start, 5, 0, tokens(1, 1), 7.0)
    assert one.states.skipped == 31
