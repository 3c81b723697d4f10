"""Two runs compared: all that happened, or only when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from halos.testing.recording import Recording
from halos.testing.witness import fingerprint
from halos.values.params import Params
from halos.values.records import Commit, Evaluation, Update


def everything(recording: Recording) -> list[Any]:
    """Every record in order, and the bits of every model that was trained or committed."""
    found: list[Any] = []
    for each in recording.heard:
        found.append((type(each).__name__, each.as_json()))
        if isinstance(each, Update):
            found.append(("its parameters", fingerprint([field for field in each if isinstance(field, Params)])))
        elif isinstance(each, Commit):
            found.append(("its parameters", fingerprint(each.params)))
    return found


def timeline(recording: Recording) -> list[Any]:
    """Every record in order, without what only training can know: losses, drift, evaluations."""
    found: list[Any] = []
    for each in recording.heard:
        if isinstance(each, Update):
            found.append(each._replace(losses=()).as_json())
        elif isinstance(each, Commit):
            shares = [(share.from_version, share.staleness, [one.id for one in share.updates]) for share in each.shares]
            found.append((each._replace(shares=()).as_json(), shares))
        elif not isinstance(each, Evaluation):
            found.append(each.as_json())
    return found


def first_difference(one: Sequence[Any], other: Sequence[Any]) -> Optional[str]:
    """Where two lists part; None if nowhere."""
    for index, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return f"record {index} is {a} and {b}"
    if len(one) != len(other):
        return f"there are {len(one)} and {len(other)} records"
    return None
