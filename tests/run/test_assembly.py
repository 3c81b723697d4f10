"""What does not fit together is said before a run begins."""

from __future__ import annotations

import pytest

from halos.errors import ConfigError
from halos.testing import record, tiny
from halos.training.inline import Inline
from tests.faulty import crash


def test_an_executor_that_cannot_forget_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Inline, "forget")
    record(tiny(faults=crash(0, 1.0, 1.0)))
    with pytest.raises(
        ConfigError, match=r"^faults\.inner_state: cannot be gone: this executor has no method `forget`"
    ):
        record(tiny(faults=crash(0, 1.0, 1.0, inner_state="gone")))
