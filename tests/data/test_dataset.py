"""Samples that are no tokens: arrays, PyTorch datasets, and the page that shows them."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from halos.data import ArrayCorpus
from halos.data.dataset import DatasetCorpus
from halos.data.feed import Feed
from halos.errors import UserError
from halos.run.cli import main
from halos.seeds import seed_for
from halos.testing import record, tiny
from halos.testing.conformance import DataConformance
from tests.data.test_feed import Options, cluster

ROOT = Path(__file__).parents[2]
IMAGES = np.arange(12 * 4, dtype=np.float64).reshape(12, 2, 2)
LABELS = np.arange(12, dtype=np.uint8)


def both(samples: Any) -> list[Any]:
    """As arrays, and as a dataset."""
    items = list(zip(*samples)) if isinstance(samples, tuple) else samples
    return [ArrayCorpus(samples), DatasetCorpus(items)]


@pytest.mark.parametrize("corpus", both((IMAGES, LABELS)))
def test_several_arrays_come_as_a_batch_that_unpacks(corpus: Any) -> None:
    one = Feed(corpus, Options(shuffle=False), cluster(1), 1)
    images, labels = one.train(0, 8, 4)  # over the end of an epoch of ten
    assert labels.tolist() == [8, 9, 0, 1] and labels.dtype == torch.int64
    assert images.tolist() == IMAGES[[8, 9, 0, 1]].tolist() and images.dtype == torch.float32
    assert [labels.tolist() for _, labels in one.validation(8)] == [[10, 11]]


@pytest.mark.parametrize("corpus", both(IMAGES > 3))
def test_one_array_is_one_tensor(corpus: Any) -> None:
    batch = Feed(corpus, Options(shuffle=False), cluster(1), 1).train(0, 0, 2)
    assert isinstance(batch, torch.Tensor) and batch.dtype == torch.bool
    assert batch.tolist() == (IMAGES > 3)[:2].tolist()


def test_a_dataset_of_pytorch_is_a_corpus() -> None:
    one = DatasetCorpus(TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS)))
    images, labels = one.read(np.array([3, 1]))
    assert (images.tolist(), labels.tolist()) == (IMAGES[[3, 1]].tolist(), [3, 1])
    assert [part.shape for part in one.read(slice(0, 0))] == [(0, 2, 2), (0,)]
    assert (one.vocab_size, one.sources, len(one)) == (None, None, 12)


def test_the_hash_is_worked_out_of_the_content_unless_it_is_given() -> None:
    changed = IMAGES.copy()
    changed[5, 1, 1] += 1
    for make in (ArrayCorpus, lambda samples: DatasetCorpus(list(samples))):
        assert make(IMAGES).hash == make(IMAGES.copy()).hash != make(changed).hash
        assert len(make(IMAGES).hash) == 64
    assert ArrayCorpus(IMAGES, hash="own").hash == DatasetCorpus(IMAGES, hash="own").hash == "own"
    assert ArrayCorpus(torch.tensor(IMAGES)).hash == ArrayCorpus(IMAGES).hash


def test_tokens_of_a_dataset_are_checked_as_any() -> None:
    one = Feed(DatasetCorpus([[1, 2, 3]] * 12, vocab_size=3), Options(), cluster(1), 1)
    with pytest.raises(UserError, match=r"^data: the corpus holds token 3, but its vocab_size is 3$"):
        one.train(0, 0, 1)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ((IMAGES, LABELS[:3]), "the parts of samples hold 12, 3 of them, not equally many"),
        (np.array(["a"]), "samples are <U1, not integers, floating-point numbers or truth values"),
        (3.0, "samples are no array with a dimension for them"),
        ((), "samples are no array with a dimension for them"),
    ],
)
def test_what_is_no_array_of_samples_is_named(samples: Any, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        ArrayCorpus(samples)
    assert str(caught.value) == problem


def test_what_can_only_be_iterated_over_is_refused() -> None:
    class Endless(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(9))

    with pytest.raises(
        UserError, match=r"^Endless has no length, or no samples by number: it can only be iterated ove"
    ):
        DatasetCorpus(Endless())
    with pytest.raises(UserError, match=r"^samples are dict, not integers"):
        DatasetCorpus([{"image": 1}])


# docs/data.md

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\w+\.py)`[^\n]*:\n\n```python\n(.*?)^```$", PAGE, re.M | re.S))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, images of noise to which a sample's label is added, and where their commands are run."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    (text,) = re.findall(r"`idea.yaml`:\n\n```yaml\n(.*?)^```$", (ROOT / "docs/plugins.md").read_text(), re.M | re.S)
    Path("idea.yaml").write_text(text)
    draw = np.random.default_rng(1)
    labels = draw.integers(2, size=512)
    np.savez("images.npz", images=draw.normal(size=(512, 1, 8, 8)) + labels[:, None, None, None], labels=labels)
    return tmp_path


def test_images_and_labels_are_fifteen_lines() -> None:
    assert sorted(FILES) == ["classifier.py", "images.py"]
    assert sum(line.strip() != "" for line in FILES["images.py"].splitlines()) <= 15


def test_the_page_s_command_trains_on_them(folder: Path) -> None:
    (command,) = re.findall(r"^\$ (.*)$", PAGE, re.M)
    assert main(shlex.split(command)[3:]) == 0
    lines = [json.loads(line) for line in Path("runs/images/evaluations.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] > 0.5 and lines[-1]["loss"] < 0.1  # light and dark are 8 standard deviations apart


def test_what_must_hold_of_every_source_holds_of_them(folder: Path) -> None:
    class Images(DataConformance):
        plugins = ("images.py",)

    tests = [name for name in dir(Images) if name.startswith("test_")]
    assert len(tests) == 6
    for name in tests:
        getattr(Images(), name)({"name": "images", "path": "images.npz", "sequence_length": 1})


def test_one_worker_s_steps_on_images_are_those_of_pytorch_alone(folder: Path) -> None:
    data = {"name": "images", "path": "images.npz", "shuffle": False, "validation_samples": 2}
    sections = tiny(cluster={"regions": [{"workers": [1.0]}]}, train={"batch_size": 4}, budget={"local_steps": 6})
    run = record({**sections, "data": data, "model": {"name": "classifier"}}, ["images.py", "classifier.py"])
    torch.manual_seed(seed_for(run.experiment.seed, "initial weights"))
    linear = torch.nn.Linear(64, 2)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    file = np.load("images.npz")
    images, labels = torch.tensor(file["images"]).float().reshape(512, 64), torch.tensor(file["labels"])
    for step in range(6):
        optimizer.zero_grad()
        rows = slice(4 * step, 4 * step + 4)
        torch.nn.functional.cross_entropy(linear(images[rows]), labels[rows]).backward()
        optimizer.step()
    expected = torch.cat([parameter.detach().reshape(-1) for parameter in linear.parameters()])
    flat = run.global_commits[-1].params.flat
    assert flat is not None
    torch.testing.assert_close(flat, expected)
    loss = torch.nn.functional.cross_entropy(linear(images[510:]), labels[510:]).item()
    assert run.evaluations[-1].loss == pytest.approx(loss, rel=1e-5)
