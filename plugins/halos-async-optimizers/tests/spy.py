"""A plugin: a merge rule that notes what it is given, steps that hear what merge rules have done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from halos import SGD, Fixed, Merge, MergeRule, Params, Register, hookimpl, refused_by, start_of


@dataclass
class Spy:
    """Another rule, and what it was given: `seen`, a (model, base, age) each step."""

    outer: MergeRule = field(default_factory=SGD)

    def __post_init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []  # parameters by their serial numbers

    def init(self, params: Params) -> Any:
        return self.outer.init(params)

    def start(self, params: Params, state: Any) -> Params:
        return start_of(self.outer, params, state)

    def refuses(self, staleness: int) -> bool:
        return refused_by(self.outer, staleness)

    def step(
        self, params: Params, delta: Params, state: Any, *, base: Optional[Params] = None, staleness: int = 0
    ) -> tuple[Params, Any]:
        assert base is not None
        self.seen.append((params.serial, base.serial, staleness))
        return self.outer.step(params, delta, state, base=base, staleness=staleness)


@dataclass
class Hearing(Fixed):
    """`fixed` steps, and what `on_merge` says, kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.heard: list[Merge] = []

    @hookimpl
    def on_merge(self, merge: Merge) -> None:
        self.heard.append(merge)


@hookimpl
def register_merge_rules(register: Register) -> None:
    register("spy", Spy)


@hookimpl
def register_step_allocations(register: Register) -> None:
    register("hearing", Hearing)
