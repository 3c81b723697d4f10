"""Different algorithms that must give the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from halos.data.feed import Feed
from halos.models.gpt_neox import GPTNeoX
from halos.testing import Recording, record, tiny

# Noisy gradients, so that it matters who trained on which samples.
NOISY = {"name": "quadratic", "size": 5, "noise": 0.3, "dtype": "float64", "curvature": [1, 2, 3, 4, 5]}


def flats(run: Recording, every: int = 1) -> list[torch.Tensor]:
    return [commit.params.flat for commit in run.global_commits[every - 1 :: every]]  # type: ignore[misc]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_async_with_full_grace_windows_is_diloco(optimizer: str) -> None:
    """Delayed Nesterov with N = M and c = 0 ≡ Nesterov, if every window holds one update of each worker."""
    shared = {
        "cluster": {"regions": [{"workers": [1.0] * 4}], "step_time_ms": 1000},
        "model": NOISY,
        "train": {"optimizer": {"name": optimizer, "lr": 0.05, "weight_decay": 0.1}},
        "steps": {"base": 3},
        "budget": {"local_steps": 4 * 3 * 20},
    }
    diloco = record(tiny(**shared, policy={"outer": {"name": "nesterov", "lr": 0.4, "momentum": 0.8}}))
    outer = {"name": "delayed_nesterov", "lr": 0.4, "beta": 0.8, "buffer": 4}
    policy = {"name": "async_local_sgd", "outer": outer, "grace_seconds": 1e6}
    asynchronous = record(tiny(**shared, policy=policy))
    assert [update.samples for update in asynchronous.updates] == [update.samples for update in diloco.updates]
    ours, theirs = flats(asynchronous, every=4), flats(diloco)
    assert len(ours) == len(theirs) == 20
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_halos_with_one_local_server_and_instant_exchange_is_async(weight: float) -> None:
    """Global SGD of rate 1 takes over the local server's model at each send."""
    local = {"name": "delayed_nesterov", "lr": 0.6, "beta": 0.9, "buffer": 3}
    shared = {
        "cluster": {"regions": [{"workers": [1.0, 0.7, 0.3]}], "step_time_ms": 1000},
        "model": NOISY,
        "budget": {"local_steps": 120},
    }
    halos = record(
        tiny(
            **shared,
            policy={
                "name": "halos",
                "outer": {"name": "sgd", "lr": 1.0},
                "local": local,
                "local_updates": 4,
                "merge_weight": weight,
            },
        )
    )
    asynchronous = record(tiny(**shared, policy={"name": "async_local_sgd", "outer": local}))
    ours, theirs = flats(halos), flats(asynchronous, every=4)
    assert len(ours) >= 15
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_diloco_of_one_worker_with_outer_sgd_1_is_plain_training() -> None:
    """Against a bare PyTorch loop: AdamW, clipping, warm-up and cosine, written out here."""
    model = {"name": "gpt_neox", "hidden_size": 16, "layers": 2, "heads": 2}
    train: dict[str, Any] = {
        "batch_size": 4,
        "micro_batch_size": 2,
        "optimizer": {
            "name": "adamw",
            "lr": 0.01,
            "weight_decay": 0.1,
            "eps": 1e-4,
        },  # the keys' biases have no gradient
        "schedule": {"name": "warmup_cosine", "warmup": 4, "total": 20},
        "clip": 1.0,
    }
    run = record(
        tiny(
            cluster={"regions": [{"workers": [1.0]}]},
            model=model,
            train=train,
            steps={"base": 5},
            budget={"local_steps": 30},
        )
    )

    config = run.config
    module = GPTNeoX(hidden_size=16, layers=2, heads=2).build(64, config.seed)
    decayed = [p for p in module.parameters() if p.dim() >= 2]
    others = [p for p in module.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-4)
    feed = Feed(config.data.open(config.seed), config.data, run.experiment.cluster, config.seed)
    for step in range(1, 31):
        progress = min(1.0, (step - 4) / 16)
        cosine = 0.001 + 0.009 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress)).item())
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * step / 4 if step <= 4 else cosine
        optimizer.zero_grad()
        for half in range(2):
            (module(feed.train(0, 4 * (step - 1) + 2 * half, 2)) / 2).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    ours = run.global_commits[-1].params.tensors()
    for name, parameter in module.named_parameters():
        # Outer SGD of rate 1 computes θ − (θ − θ'), which fp32 rounds every five steps.
        torch.testing.assert_close(ours[name], parameter.detach(), rtol=1e-4, atol=2e-6)
