"""`--explain` and `--list-plugins` as they are printed."""

from __future__ import annotations

import re

from tests.conftest import Command

PLUGIN = '''
from dataclasses import dataclass
from halos import hookimpl

@dataclass
class Mine:
    """Ours [bold], it is."""
    speed: int = 3  # in [knots]
    async def run(self, sim): pass

@hookimpl
def register_sync_policies(register): register("mine", Mine)
'''


def test_a_component_of_ones_own_is_explained(command: Command) -> None:
    got = command("--plugin", "mine.py", "--explain", "policy.mine", files={"mine.py": PLUGIN})
    lines = [line.split() for line in got.out.splitlines() if line]
    assert lines == [
        ["policy.mine:", "from", "mine.py"],
        ["Ours", "[bold],", "it", "is."],
        ["key", "type", "default", "meaning"],
        ["speed", "an", "integer", "3", "in", "[knots]"],
    ]
    assert (got.code, got.err, got.made) == (0, "", set())


def test_a_section_lists_what_can_be_chosen(command: Command) -> None:
    out = command("--explain", "executor").out
    assert "executor: default: inline" in out and re.search(r"^inline +halos  Trains in this process", out, re.M)


def test_all_is_everything_there_is(command: Command) -> None:
    out = command("--explain", "all").out
    assert all(
        f"\n{path}" in out for path in ("policy.halos", "train.optimizer", "merge_rule.adam", "seed: an integer")
    )


def test_components_are_listed_kind_by_kind_and_in_order_of_name(command: Command) -> None:
    rows = [line.split()[:2] for line in command("--list-plugins").out.splitlines()]
    assert rows[:5] == [["kind", "name"], ["policy", "async_local_sgd"], ["policy", "diloco"], ["policy", "halos"],
                        ["merge", "rule"]]  # fmt: skip
