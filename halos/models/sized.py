"""A model that is only a size, for timelines of models that nobody here could train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch

from halos.errors import UserError, require
from halos.hooks import Register, hookimpl


@dataclass(frozen=True)
class Sized:
    """A number of parameters and nothing else; needs `executor.name=timing`."""

    parameters: int  # how many, for example 405e9
    wire_bytes: Optional[int] = None  # of the whole model in fp32, on the wire; null: 4 per parameter
    seed: Optional[int] = None  # nothing is drawn

    def __post_init__(self) -> None:
        require(self.parameters >= 1, "parameters", self.parameters, "a positive number")
        require(self.wire_bytes is None or self.wire_bytes >= 1, "wire_bytes", self.wire_bytes, "a positive number")

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        return {"parameters": (self.parameters,)}

    def build(self, vocab_size: Optional[int], seed: int) -> torch.nn.Module:
        raise UserError(
            f"a model of name 'sized' has a size ({self.parameters:,} parameters) but cannot be trained; "
            "use executor.name=timing, or a model such as gpt_neox"
        )


@hookimpl
def register_models(register: Register) -> None:
    register("sized", Sized)
