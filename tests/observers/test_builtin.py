"""The built-in observers, and who turns them on."""

from __future__ import annotations

import pytest

from halos.errors import ConfigError
from halos.observers.builtin import ObserverOptions, build


def test_the_options_say_who_observes() -> None:
    names = [type(observer).__name__ for observer in build(ObserverOptions(results=True))]
    assert names == ["FullRecorder", "TensorBoard", "Trace", "Results", "Progress"]
    few = build(ObserverOptions(progress=False, tensorboard=False, trace=False, records="none"))
    assert [type(observer).__name__ for observer in few] == ["Recorder"]


def test_an_unknown_choice_of_records_is_refused() -> None:
    with pytest.raises(ConfigError, match="records: 'some' is not one of all, commits, none"):
        ObserverOptions(records="some")
