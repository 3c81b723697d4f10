"""A plugin for tests: a fault model that loses the messages of given numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from halos import FaultOptions, Register, hookimpl


@dataclass
class Losing(FaultOptions):
    """Messages are counted in the order in which they are sent."""

    messages: list[int] = field(default_factory=list)

    def loses(self, message: int) -> bool:
        return message in self.messages


@hookimpl
def register_fault_models(register: Register) -> None:
    register("losing", Losing)
