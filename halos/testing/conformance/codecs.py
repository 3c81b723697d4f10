"""Conformance of codecs: two pure functions of a payload, and bytes that can really hold what arrives."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from halos.config.yaml_text import Section
from halos.rules.codecs import Codec
from halos.testing.conformance.suite import Suite
from halos.testing.witness import fingerprint, watching
from halos.values.params import Layout, Params

LAYOUT = Layout({"matrix": (40, 30), "bias": (30,)})  # in fp32
PARTS = {"all of it": (slice(0, 1230),), "a part": (slice(3, 100), slice(700, 1230)), "one number": (slice(5, 6),)}


class CodecConformance(Suite):
    """Payloads of normally distributed numbers, of zeros, hollow ones, and parts of each."""

    kind: ClassVar[str] = "codec"
    error: ClassVar[float] = 1.0  # of a payload that arrives, at the most, in units of its norm: 1 is sending nothing

    @pytest.mark.parametrize("part", PARTS)
    def test_what_arrives_is_of_the_same_shape_and_near(self, section: Section, part: str) -> None:
        codec, payload = self.codec(section), normal(0)[PARTS[part]]
        with self.about(section, f", {part}"):
            arrived = codec.roundtrip(payload)
        assert payload.flat is not None
        fits = arrived.flat is not None and arrived.flat.dtype == torch.float32 and arrived.size == payload.size
        self.check(fits, section, f"{part}: {payload.size} numbers in fp32 became {arrived.size}, {arrived.flat}")
        lost = (arrived - payload).norm() / payload.norm()
        words = f"{part}: the error is {lost:.3g} of the payload, allowed are {self.error:g}"
        self.check(lost <= self.error, section, words)

    def test_nothing_arrives_as_nothing(self, section: Section) -> None:
        arrived = self.codec(section).roundtrip(normal(0).zeros())
        self.check(arrived.norm() == 0.0, section, f"zeros became a payload of norm {arrived.norm()}")

    def test_hollow_payloads_stay_hollow_and_weigh_the_same(self, section: Section) -> None:
        """In whole bytes, whatever they hold."""
        codec = self.codec(section)
        for name, part in PARTS.items():
            real, hollow = normal(0)[part], Params(LAYOUT, None)[part]
            with self.about(section, f", {name}"):
                weights = codec.wire_bytes(real), codec.wire_bytes(real.zeros()), codec.wire_bytes(hollow)
                arrived = codec.roundtrip(hollow)
            whole = all(type(weight) is int and weight >= 0 for weight in weights)
            self.check(whole, section, f"{name}: {weights} are no numbers of bytes")
            words = f"{name}: numbers, zeros and a hollow payload weigh {weights} bytes"
            self.check(len(set(weights)) == 1, section, words)
            self.check(arrived.hollow and arrived.size == real.size, section, f"{name}: it did not stay hollow")

    def test_bytes_can_hold_what_arrives(self, section: Section) -> None:
        """One number in b bytes can arrive as at most 256^b different ones (tried up to two bytes)."""
        codec = self.codec(section)
        single = Layout({"number": (1,)})
        nbytes = codec.wire_bytes(Params(single, None))
        if nbytes > 2:
            return
        values = torch.randn(256**nbytes + 4000, generator=torch.Generator().manual_seed(0))
        arrived = {flat_of(codec.roundtrip(Params(single, value))).item() for value in torch.split(values, 1)}
        words = f"one number weighs {nbytes} byte(s), but {len(arrived)} different ones have arrived"
        self.check(len(arrived) <= 256**nbytes, section, words)

    def test_modifies_nothing(self, section: Section) -> None:
        codec = self.codec(section)
        with watching() as witness, self.about(section):
            for seed in range(3):
                payload = normal(seed)
                codec.wire_bytes(payload)
                codec.roundtrip(codec.roundtrip(payload))
        modified = witness.modified()
        self.check(not modified, section, f"payloads were modified in place, those made at {', '.join(modified)}")

    def test_is_a_function_of_the_payload(self, section: Section) -> None:
        """Whatever was sent before, and by another instance as well (what is lost is the simulation's to remember)."""
        codec, other = self.codec(section), self.codec(section)
        with self.about(section):
            first = [fingerprint(codec.roundtrip(normal(seed))) for seed in range(3)]
            again = [fingerprint(codec.roundtrip(normal(seed))) for seed in reversed(range(3))][::-1]
            others = [fingerprint(other.roundtrip(normal(seed))) for seed in range(3)]
        self.check(first == again, section, "the same payload arrives otherwise the second time")
        self.check(first == others, section, "the same payload arrives otherwise by another instance")

    def codec(self, section: Section) -> Codec:
        """A new codec."""
        codec: Codec = self.build(section)
        return codec


def normal(seed: int) -> Params:
    """Normally distributed numbers, the same for the same seed."""
    return Params(LAYOUT, torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(seed)))


def flat_of(params: Params) -> torch.Tensor:
    """Their values."""
    assert params.flat is not None, "a payload with values arrives with values"
    return params.flat
