"""What happened, as small frozen records: the vocabulary between simulation and observers.

Times are virtual seconds. `as_json` gives the line a record becomes in the run folder. The frequent
ones are named tuples, which are made three times as fast as frozen dataclasses.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Optional

from halos.values.params import Params


def number(value: float | None) -> str:
    """A number as JSON has it; what is no finite number becomes null."""
    return repr(value) if value is not None and math.isfinite(value) else "null"


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """A text as JSON has it."""
    return json.dumps(text)


class Update(NamedTuple):
    """What a worker sends back: `steps` local steps from `start` to `params`.

    `samples` is the half-open range of the data order it trained on, `lr_step` the learning-rate
    step before the first of them, `losses` the training losses averaged over `chunks` steps each.
    With `server` (a region) it was an asynchronous round trip and `time` is its arrival there. A job
    that only asked for the gradient has it as `gradient`, and `params` are where it started.
    """

    id: int
    worker: int
    region: int
    start: Params
    params: Params
    steps: int
    start_time: float
    time: float
    start_version: int
    samples: tuple[int, int]
    lr_step: int
    losses: tuple[float, ...]
    chunks: tuple[int, ...]
    compute: tuple[float, float]  # when it computed, seconds
    server: Optional[int] = None
    factor: float = 1.0
    gradient: Optional[Params] = None

    @property
    def delta(self) -> Params:
        """The pseudo-gradient, `factor · (start − params)`: subtracting it moves *towards* `params`."""
        difference = self.start - self.params if self.gradient is None else self.gradient
        return difference if self.factor == 1.0 else difference * self.factor

    @property
    def end(self) -> Params:
        """Where it ends, as weighted: `start − delta`, which is `params` where it counts as it is."""
        return self.params if self.factor == 1.0 and self.gradient is None else self.start - self.delta

    def since(self, theta: Params) -> Params:
        """`factor · (theta − params)`: the pseudo-gradient as it is from `theta`, wherever it began."""
        if self.start is theta:
            return self.delta
        difference = theta - self.params
        return difference if self.factor == 1.0 else difference * self.factor

    def receipt(self) -> Update:
        """This update without its tensors, for those who only need to count it later."""
        return self._replace(start=self.start.shell(), params=self.params.shell(), gradient=None)

    def as_json(self) -> str:
        return (
            f'{{"time": {self.time!r}, "worker": {self.worker}, "region": {self.region}, "steps": {self.steps}, '
            f'"start_time": {self.start_time!r}, "start_version": {self.start_version}, '
            f'"first_sample": {self.samples[0]}, "end_sample": {self.samples[1]}, "lr_step": {self.lr_step}, '
            f'"losses": [{", ".join(map(number, self.losses)) if self.losses else ""}], '
            f'"server": {"null" if self.server is None else self.server}}}'
        )


class Transfer(NamedTuple):
    """Bytes on a link: from region `src` to region `dst`, or a collective over all (both None).

    `kind` is `pull`, `push`, `send` or `all_reduce`; `worker` whose pull or push it was. The bytes of an
    all-reduce among M workers are what the links of its ring carry in all: 2 (M−1) payloads, or M (M−1) if
    they cannot be summed under way.
    """

    start_time: float
    time: float
    src: Optional[int]
    dst: Optional[int]
    bytes: int
    kind: str
    worker: Optional[int] = None
    server: Optional[int] = None

    def as_json(self) -> str:
        return (
            f'{{"start_time": {self.start_time!r}, "time": {self.time!r}, '
            f'"src": {"null" if self.src is None else self.src}, "dst": {"null" if self.dst is None else self.dst}, '
            f'"bytes": {self.bytes}, "kind": "{self.kind}", '
            f'"worker": {"null" if self.worker is None else self.worker}, '
            f'"server": {"null" if self.server is None else self.server}}}'
        )


@dataclass(frozen=True, eq=False)
class Contribution:
    """Updates that a commit brings in together: computed from `base`, applied to `target`.

    `from_version` is the committing server's version that `base` belongs to: its own, if it was
    committed there, unless said otherwise.
    """

    updates: tuple[Update, ...] | list[Update]
    base: Params
    target: Params
    from_version: Optional[int] = None


class Share(NamedTuple):
    """One contribution as it was committed: how old, and how far the model had moved meanwhile.

    `drift` = ‖target − base‖₂ (NaN when parameters are hollow); `staleness` in versions of the
    committing server.
    """

    updates: tuple[Update, ...]
    from_version: int
    staleness: int
    drift: float

    @property
    def steps(self) -> int:
        """Local steps of all its updates."""
        updates = self.updates
        return updates[0].steps if len(updates) == 1 else sum([update.steps for update in updates])

    def as_json(self) -> str:
        if len(self.updates) == 1:  # by far the most frequent
            workers = str(self.updates[0].worker)
        else:
            workers = ", ".join([str(update.worker) for update in self.updates])
        return (
            f'{{"workers": [{workers}], "steps": {self.steps}, "from_version": {self.from_version}, '
            f'"staleness": {self.staleness}, "drift": {number(self.drift)}}}'
        )


class Commit(NamedTuple):
    """A server's model changed: to `params`, now its version `version`.

    `kind` is `update` (something was contributed) or `merge` (the server took over another model;
    its version stays). `local_steps` counts what this server has committed so far.
    """

    time: float
    version: int
    server: str
    kind: str
    local_steps: int
    shares: tuple[Share, ...]
    params: Params

    def as_json(self) -> str:
        return (
            f'{{"time": {self.time!r}, "version": {self.version}, "server": {quoted(self.server)}, '
            f'"kind": "{self.kind}", "local_steps": {self.local_steps}, '
            f'"contributions": [{", ".join([share.as_json() for share in self.shares])}]}}'
        )


class CutShort(NamedTuple):
    """A job of which no update came, lost or still under way at the end of the run; moments in virtual seconds."""

    worker: int
    began: float
    computes: float  # from then
    until: float  # then it pushes, if it does
    lost: float  # infinite: it is not


@dataclass(frozen=True)
class Evaluation:
    """The loss (nats per token) of a model on one evaluation set, at one moment of the run."""

    time: float
    version: int
    local_steps: int
    trained_steps: int
    tokens: int
    loss: float
    set: str
    of: str = "global"

    def as_json(self) -> str:
        return (
            f'{{"time": {self.time!r}, "version": {self.version}, "local_steps": {self.local_steps}, '
            f'"trained_steps": {self.trained_steps}, "tokens": {self.tokens}, "loss": {number(self.loss)}, '
            f'"set": {quoted(self.set)}, "of": {quoted(self.of)}}}'
        )


Summary = dict[str, Any]


ALL_REDUCE = "all_reduce"


def mean_loss(commit: Commit) -> Optional[float]:
    """The mean training loss of the updates in `commit` (of their chunks, as upstream has it), if there are any."""
    losses = [loss for share in commit.shares for update in share.updates for loss in update.losses]
    if not losses:
        return None
    mean = sum(losses) / len(losses)
    return mean if math.isfinite(mean) else None
