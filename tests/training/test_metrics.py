"""What is measured beside a loss: worked out by hand, or from a network's logits by NumPy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from halos.run.cli import main
from halos.testing import record, tiny
from halos.testing.resuming import problem
from halos.training.metrics import derived

LANGUAGE = SimpleNamespace(language_model=True)
NEOX = {"name": "gpt_neox", "hidden_size": 8, "layers": 1, "heads": 2, "initializer_range": 0.5}

OWN = '''
from dataclasses import dataclass
import torch
from halos import hookimpl


class Guess(torch.nn.Module):
    """½ (θ − 1)², whatever the batch."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return 0.5 * (self.theta - 1).square().sum()


@dataclass
class Guesser:
    loss_too: bool = False

    def shapes(self, vocab_size):
        return {"theta": (1,)}

    def build(self, vocab_size, seed):
        return Guess()

    def metrics(self, module, batch):
        own = {"first": batch[:, 0].double().mean(), "accuracy": 0.25}
        return {"loss": torch.tensor(7.0), **own} if self.loss_too else own


@hookimpl
def register_models(register):
    register("guesser", Guesser)
'''


def test_of_a_language_model_perplexity_and_bits_per_byte_follow_from_the_loss() -> None:
    means = derived({"loss": math.log(8)}, LANGUAGE, 1.5)
    assert means == pytest.approx({"loss": math.log(8), "perplexity": 8.0, "bits_per_byte": 2.0})
    assert "bits_per_byte" not in derived({"loss": 1.0}, LANGUAGE, None)
    assert derived({"loss": 1e6}, LANGUAGE, None)["perplexity"] == math.inf
    assert derived({"loss": 1.0, "perplexity": 5.0}, LANGUAGE, None)["perplexity"] == 5.0  # the model's own
    assert derived({"loss": 1.0}, object(), 1.0) == {"loss": 1.0}


def test_a_language_models_metrics_are_those_of_its_logits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Nature's first green is gold, her hardest hue to hold. " * 9)
    data = {"name": "text", "path": str(tmp_path / "a.txt"), "sequence_length": 8, "validation_samples": 7}
    # Of 7 samples, batches of 2: the last one is smaller.
    train = {"batch_size": 2, "optimizer": {"name": "adamw", "lr": 0.02}}
    run = record({**tiny(model=NEOX, train=train, budget={"local_steps": 40}), "data": data})
    last = run.evaluations[-1]
    network = run.config.model.build(256, run.config.seed)
    network.load_state_dict(run.simulation.params.tensors())
    text = np.frombuffer((tmp_path / "a.txt").read_bytes() + b"\0", np.uint8)
    count = (len(text) - 1) // 8
    samples = np.stack([text[8 * i : 8 * i + 9] for i in range(count - 7, count)]).astype(np.int64)
    logits = network.logits(torch.from_numpy(samples[:, :-1])).detach().double().numpy()
    spread = logits - logits.max(-1, keepdims=True)
    chances = np.exp(spread) / np.exp(spread).sum(-1, keepdims=True)
    surprise = -np.log(np.take_along_axis(chances, samples[:, 1:, None], -1))
    right = logits.argmax(-1) == samples[:, 1:]
    assert last.loss == pytest.approx(surprise.mean(), rel=1e-5)
    assert last.metrics == {
        "perplexity": pytest.approx(np.exp(surprise.mean()), rel=1e-4),
        "bits_per_byte": pytest.approx(surprise.mean() / np.log(2), rel=1e-5),
        "accuracy": pytest.approx(right.mean()),
    }
    assert 0 < right.mean() < 1


@pytest.mark.parametrize("loss_too", [False, True])
def test_a_models_own_metrics_are_means_over_samples_recorded_everywhere(loss_too: bool, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    np.save(tmp_path / "data.npy", np.arange(8)[:, None].repeat(9, 1))
    config = tiny(
        data=None, model=None, train={"batch_size": 2},
        observers={"progress": False, "tensorboard": False, "trace": False},
    )  # fmt: skip
    config["model"] = {"name": "guesser", "loss_too": loss_too}
    tokens = {"name": "tokens", "path": str(tmp_path / "data.npy"), "sequence_length": 8, "validation_samples": 3}
    config |= {"data": tokens, "evaluate": {"sets": {"all": {**tokens, "validation_samples": 8}}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main([str(tmp_path / "c.yaml"), "--plugin", str(tmp_path / "own.py"), f"out={tmp_path / 'run'}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/evaluations.jsonl").read_text().splitlines()]
    # Samples begin with their numbers: of 5, 6 and 7 (batches of 2 and 1) the mean is 6, of 0 to 7 it is 3.5.
    unknown = {"perplexity": None, "bits_per_byte": None, "accuracy": 0.25}
    expected = {"validation": {**unknown, "first": 6.0}, "all": {**unknown, "first": 3.5}}
    assert [each["metrics"] for each in lines] == [expected["validation"], expected["all"]] * 2
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["final_metrics"] == expected
    theta = 1 - 0.9**4  # two rounds of 2 steps, from 0
    loss = 7.0 if loss_too else pytest.approx(0.5 * (1 - theta) ** 2, rel=1e-5)
    assert summary["final_losses"] == {"validation": loss, "all": loss}
    assert lines[0]["loss"] == (7.0 if loss_too else 0.5)


def test_a_resumed_run_has_the_metrics_that_the_run_had(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    sections = {**tiny(evaluate={"every_local_steps": 4}), "model": {"name": "guesser"}}
    assert problem(sections, [str(tmp_path / "own.py")]) is None
    assert problem(tiny(model=NEOX, evaluate={"every_local_steps": 4})) is None
