"""Codecs: what a payload becomes on the wire, in values and in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from halos.hooks import Register, hookimpl
from halos.values.params import Params


class Codec(Protocol):
    """Two pure functions of a payload; sums of several payloads are formed in the layout's precision."""

    def roundtrip(self, payload: Params) -> Params:
        """Return the payload as decoded at the other end, in the same layout; hollow when it is."""
        ...

    def wire_bytes(self, payload: Params) -> int:
        """Return the payload's exact size on the wire, in bytes; it depends on the layout alone (may be hollow)."""
        ...


@dataclass(frozen=True)
class Fp32:
    """Four bytes per parameter; values unchanged."""

    def roundtrip(self, payload: Params) -> Params:
        return payload

    def wire_bytes(self, payload: Params) -> int:
        return 4 * payload.size


@dataclass(frozen=True)
class Fp16:
    """Two bytes per parameter, IEEE half precision (values beyond ±65504 overflow to infinity)."""

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: flat.to(torch.float16).to(flat.dtype))

    def wire_bytes(self, payload: Params) -> int:
        return 2 * payload.size


@dataclass(frozen=True)
class Bf16:
    """Two bytes per parameter, bfloat16: fp32's range with eight bits of precision."""

    def roundtrip(self, payload: Params) -> Params:
        return payload.map(lambda flat: flat.to(torch.bfloat16).to(flat.dtype))

    def wire_bytes(self, payload: Params) -> int:
        return 2 * payload.size


FP32 = Fp32()  # for models: the configured codec is made for differences


@hookimpl
def register_codecs(register: Register) -> None:
    register("fp32", Fp32)
    register("fp16", Fp16)
    register("bf16", Bf16)
