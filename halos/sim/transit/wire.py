"""Payloads in transit: decoded values, bytes, error-feedback residuals, means."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Optional

from halos.rules.codecs import Codec
from halos.values.params import Layout, Params, mean


@dataclass(frozen=True)
class Reduction:
    """The outcome of a collective: the mean of its members' payloads, each of `bytes` on the wire.

    `gathered`: payloads that cannot be summed under way go to everybody, each as it is.
    """

    mean: Params
    bytes: int
    members: int
    gathered: bool = False
    senders: tuple[Hashable, ...] = ()

    @property
    def crossing(self) -> int:
        """Bytes that the links of the members' ring carry in all."""
        times = self.members if self.gathered else 2
        return times * (self.members - 1) * self.bytes


class Wire:
    """Payloads and their codecs. `wire_bytes` is what the whole model is said to weigh in fp32, if it is said."""

    def __init__(self, codec: Codec, params: Params, wire_bytes: Optional[int]) -> None:
        self.codec = codec
        self.lossless = codec.roundtrip(params) is params
        self._size = params.size
        self._wire_bytes = wire_bytes
        # By layout and the codec's id, which is its own as long as it is kept: bytes depend on nothing else.
        self._sizes: dict[tuple[Layout, int], tuple[Codec, int]] = {}
        self.model_bytes = self._scaled(4 * params.size)  # models, unlike differences, travel in fp32
        self.delta_bytes = self.bytes(params, codec)  # of a whole model's difference, under the configured codec
        # By sender, what part of the model it sends, and the codec's id: what that has left out so far.
        self._residuals: dict[tuple[Hashable, Layout, int], Params] = {}

    def bytes(self, payload: Params, codec: Codec) -> int:
        """Bytes of `payload` on a link, under `codec`: scaled if the whole model is said to weigh `wire_bytes`."""
        key = (payload.layout, id(codec))
        if key not in self._sizes:
            self._sizes[key] = codec, self._scaled(codec.wire_bytes(payload))
        return self._sizes[key][1]

    def arriving(self, sender: Hashable, payload: Params, codec: Codec) -> Params:
        """Return the payload as decoded at the other end.

        With error feedback (arXiv 1901.09847) a sender adds to each payload what earlier ones of the
        same part of the model have lost: e ← (Δ + β e) − decoded, where β is the codec's `decay`, or 1.
        """
        if not getattr(codec, "error_feedback", False):
            return codec.roundtrip(payload)
        key = (sender, payload.layout, id(codec))
        residual, decay = self._residuals.get(key), getattr(codec, "decay", 1.0)
        whole = payload
        if residual is not None:
            whole = payload + (residual if decay == 1.0 else residual * decay)
        arrived = codec.roundtrip(whole)
        self._residuals[key] = whole - arrived
        return arrived

    def reduce(self, payloads: Iterable[tuple[Hashable, Params]], codec: Codec) -> Reduction:
        """Return the mean of (sender, payload) pairs, summed in the order given and decoded one at a time."""
        nbytes, senders = 0, []

        def decoded() -> Iterator[Params]:
            nonlocal nbytes
            for sender, payload in payloads:
                senders.append(sender)
                nbytes = max(nbytes, self.bytes(payload, codec))
                yield self.arriving(sender, payload, codec)

        average = mean(decoded())
        return Reduction(average, nbytes, len(senders), bool(getattr(codec, "gathered", False)), tuple(senders))

    def forget(self, sender: Hashable) -> None:
        """Drop the error-feedback residuals of `sender`."""
        for key in [key for key in self._residuals if key[0] == sender]:
            del self._residuals[key]

    def _scaled(self, nbytes: int) -> int:
        return nbytes if self._wire_bytes is None else round(nbytes * self._wire_bytes / (4 * self._size))
