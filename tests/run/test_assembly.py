"""What does not fit together is said before a run begins."""

from __future__ import annotations

from typing import Any

import pytest

from halos.errors import ConfigError, UserError
from halos.testing import record, tiny
from halos.training import Task
from halos.training.inline import Inline
from halos.values.params import Params
from tests.faulty import crash


def test_an_executor_that_cannot_forget_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Inline, "forget")
    record(tiny(faults=crash(0, 1.0, 1.0)))
    with pytest.raises(
        ConfigError, match=r"^faults\.inner_state: cannot be gone: this executor has no method `forget`"
    ):
        record(tiny(faults=crash(0, 1.0, 1.0, inner_state="gone")))


EVERY = {"every_local_steps": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"bandwidth_gbps": 0}}, "network.bandwidth_gbps[0][0]: 0.0 is not a positive number"),
        ({"policy": {"name": "halos", "server_region": 3}}, "policy.server_region: 3 is not a region, 0 to 0"),
        ({"data": {"shards": "random"}}, "data.shards: 'random' is not one of shared, iid, by_region, by_source"),
        ({"model": {"wire_bytes": -1}}, "model.wire_bytes: -1 is not a"),
        (
            {"budget": {"target_loss": 0.5}, "evaluate": EVERY, "data": {"validation_samples": 0}},
            "budget.target_loss: is a validation loss, but data.validation_samples is 0",
        ),
        (
            {"budget": {"target_loss": 0.5, "local_steps": None}, "evaluate": EVERY, "executor": {"name": "timing"}},
            "budget: holds only a target_loss, but this executor trains nothing that could reach it; give local_steps,",
        ),
    ],
    ids=lambda each: each.split(":")[0] if isinstance(each, str) else "",
)
def test_what_does_not_fit_is_said_by_its_full_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        record(tiny(**changes))
    assert str(refused.value).startswith(said)


def test_out_of_memory_while_data_or_model_are_opened_is_a_mistake_and_the_executor_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[Inline] = []

    def full(self: Inline, task: Task) -> Params:
        raise MemoryError("no 9 GiB\nto be had")

    monkeypatch.setattr(Inline, "open", full)
    monkeypatch.setattr(Inline, "close", lambda self: closed.append(self))
    with pytest.raises(UserError, match=r"^out of memory while model and data were opened: no 9 GiB; take less of"):
        record(tiny())
    assert len(closed) == 1


def test_a_learning_rate_step_is_a_batch_of_every_worker_unless_it_is_said() -> None:
    def rates(**train: Any) -> list[int]:
        cluster = {"regions": [{"workers": [1.0, 1.0]}]}
        return [update.lr_step for update in record(tiny(cluster=cluster, train=train)).updates]

    # Two workers, two steps of one sample: 4 samples a round, 2 or (of 1 sample each) 4 learning-rate steps.
    assert rates() == [0, 0, 2, 2]
    assert rates(global_batch_size=1) == [0, 2, 4, 6]
