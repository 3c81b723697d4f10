"""Samples of several tensors."""

import torch

from halos.data.batch import Batch, joined


def test_a_batch_is_as_long_as_it_has_samples_and_unpacks_into_its_tensors() -> None:
    batch = Batch(torch.zeros(3, 2), torch.arange(3))
    images, labels = batch.to(torch.device("meta"))
    assert (len(batch), images.shape, labels.device.type) == (3, (3, 2), "meta")


def test_batches_are_joined_tensor_by_tensor() -> None:
    images, labels = joined(
        [Batch(torch.zeros(1, 2), torch.tensor([4])), Batch(torch.ones(2, 2), torch.tensor([5, 6]))]
    )
    assert images.tolist() == [[0, 0], [1, 1], [1, 1]]
    assert labels.tolist() == [4, 5, 6]
    both = joined([torch.ones(1), torch.zeros(1)])
    assert isinstance(both, torch.Tensor) and both.tolist() == [1, 0]
