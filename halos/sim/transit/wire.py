"""Payloads in transit: decoded values, bytes, error-feedback residuals, aggregates."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Optional

from halos.rules.aggregate import MEAN, Aggregator, Exchange, Payload
from halos.rules.codecs import Codec
from halos.values.params import Layout, Params

# A fault model's `sends`: what is sent in place of these payloads of these workers, of the how manieth question.
Sends = Callable[[Sequence[tuple[Hashable, Params]], int], Sequence[Params]]


@dataclass(frozen=True)
class Reduction:
    """The outcome of a collective: what its payloads became, what has to travel for that, and whose they were."""

    aggregate: Params
    exchanges: tuple[Exchange, ...]  # one after the other
    senders: tuple[Hashable, ...]

    @property
    def members(self) -> int:
        return len(self.senders)

    @property
    def crossing(self) -> int:
        """Bytes that the links of the members' ring carry in all."""
        return sum([exchange.crossing(self.members) for exchange in self.exchanges])


class Wire:
    """Payloads and their codecs. `wire_bytes` is what the whole model is said to weigh in fp32, if it is said.

    `sends` is a fault model's, if what arrives may be something else than what honest workers would have sent.
    """

    def __init__(
        self,
        codec: Codec,
        params: Params,
        wire_bytes: Optional[int],
        aggregator: Aggregator = MEAN,
        sends: Optional[Sends] = None,
    ) -> None:
        self.codec = codec
        self.lossless = codec.roundtrip(params) is params and sends is None  # of what workers push
        self.aggregations = 0  # so far
        self.asked = 0  # how often it was asked what workers really send
        self._aggregator = aggregator
        self._sends = sends
        self._layout = params.layout
        self._size = params.size
        self._wire_bytes = wire_bytes
        # By layout and the codec's id, which is its own as long as it is kept: bytes depend on nothing else.
        self._sizes: dict[tuple[Layout, int], tuple[Codec, int]] = {}
        self._states: dict[Layout, Any] = {}  # the aggregator's, by what part of the model is aggregated
        self.model_bytes = self._scaled(4 * params.size)  # models, unlike differences, travel in fp32
        self.delta_bytes = self.bytes(params, codec)  # of a whole model's difference, under the configured codec
        # By sender, what part of the model it sends, and the codec's id: what that has left out so far.
        self._residuals: dict[tuple[Hashable, Layout, int], Params] = {}

    def bytes(self, payload: Params, codec: Codec) -> int:
        """Bytes of `payload` on a link, under `codec`: scaled if the whole model is said to weigh `wire_bytes`."""
        return self._scaled(self._unscaled(payload, codec))

    def sent(self, sender: Hashable, payload: Params) -> Params:
        """Return what `sender` really sends when it should send `payload`: that, unless it is a worker that lies."""
        if self._sends is None or not isinstance(sender, int):
            return payload
        return self._replaced([(sender, payload)])[0]

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

    def reduce(self, payloads: Iterable[Payload], codec: Codec) -> Reduction:
        """Return what becomes of payloads, taken in the order given and decoded one at a time.

        Raises ValueError if there are none, or if they are of different sizes.
        """
        if self._sends is not None:  # it may have to know all of them
            honest = list(payloads)
            sent = self._replaced([(sender, value) for sender, value, _ in honest])
            payloads = [each._replace(value=value) for each, value in zip(honest, sent)]
        coming = iter(payloads)
        first = next(coming, None)
        if first is None:
            raise ValueError("a collective of no payloads")
        layout, brought, nbytes = first.value.layout, chain([first], coming), 0
        senders: list[Hashable] = []

        def decoded() -> Iterator[Payload]:
            nonlocal nbytes
            for sender, value, weight in brought:
                senders.append(sender)
                nbytes = max(nbytes, self._unscaled(value, codec))
                yield Payload(sender, self.arriving(sender, value, codec), weight)

        arriving = decoded()
        aggregate, self._states[layout] = self._aggregator.combine(arriving, self._states.get(layout))
        for _ in arriving:  # what it did not look at has come as well
            pass
        self.aggregations += 1
        return Reduction(aggregate, self._exchanges(nbytes, layout, len(senders), codec), tuple(senders))

    def whole_model(self, members: int) -> tuple[Exchange, ...]:
        """Return what travels where `members` aggregate whole models' differences, under the configured codec."""
        codec, layout = self.codec, self._layout
        return self._exchanges(self._sizes[layout, id(codec)][1], layout, members, codec)

    def forget(self, sender: Hashable) -> None:
        """Drop the error-feedback residuals of `sender`."""
        for key in [key for key in self._residuals if key[0] == sender]:
            del self._residuals[key]

    def _replaced(self, payloads: Sequence[tuple[Hashable, Params]]) -> Sequence[Params]:
        assert self._sends is not None, "asked for only then"
        self.asked += 1
        return self._sends(payloads, self.asked - 1)

    def _exchanges(self, nbytes: int, layout: Layout, members: int, codec: Codec) -> tuple[Exchange, ...]:
        """The same of payloads that weigh `nbytes`, not scaled; what must be gathered anyway is all that is needed."""
        if getattr(codec, "gathered", False):
            return (Exchange(self._scaled(nbytes), gathered=True),)
        wanted: Optional[Callable[[int, Layout, int], Iterable[Exchange]]]
        wanted = getattr(self._aggregator, "exchanges", None)
        if wanted is None:
            return (Exchange(self._scaled(nbytes)),)
        return tuple([each._replace(nbytes=self._scaled(each.nbytes)) for each in wanted(nbytes, layout, members)])

    def _unscaled(self, payload: Params, codec: Codec) -> int:
        key = (payload.layout, id(codec))
        if key not in self._sizes:
            self._sizes[key] = codec, codec.wire_bytes(payload)
        return self._sizes[key][1]

    def _scaled(self, nbytes: int) -> int:
        return nbytes if self._wire_bytes is None else round(nbytes * self._wire_bytes / (4 * self._size))
