"""Small frozen records of what happened: the vocabulary between simulation and observers.

Times are virtual seconds. `as_line` gives what the run folder's line of a record holds, and `as_json` that line. The
frequent ones are msgspec's structs, which are made four times as fast as named tuples, and written five times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import Any, NamedTuple, Optional, Self

from msgspec import Struct
from msgspec.structs import asdict, astuple, replace

from halos.values.lines import CommitLine, ShareLine, UpdateLine, text_of
from halos.values.params import Params

GLOBAL = "global"  # the server whose model the run trains, and that model
ALL_REDUCE = "all_reduce"  # the kind of transfer that every worker takes part in


def step_weighted(means: Sequence[float], steps: Sequence[int]) -> Optional[float]:
    """Return the mean over all local steps, from means over so many steps each; None if there are none."""
    return sum(map(mul, means, steps)) / sum(steps) if means else None


class Record(Struct, frozen=True):
    """What all of them can be asked; the fields come in order when one is iterated over."""

    def as_line(self) -> Any:
        """Return what the run folder's line holds, ready to be written."""
        return self

    def as_json(self) -> str:
        return text_of(self.as_line())

    def _replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, as named tuples do it."""
        return replace(self, **changes)

    def _asdict(self) -> dict[str, Any]:
        """Return the fields by name, likewise."""
        return asdict(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(astuple(self))


class Update(Record, frozen=True):
    """The result of a job, as a worker sends it back: `steps` local steps from `start` to `params`.

    `samples` is the half-open range of the data order it trained on, `lr_step` the learning-rate
    step before the first of them, `losses` the training losses averaged over `chunks` steps each.
    With `server` (a region) it was an asynchronous round trip and `time` is its arrival there. A job
    that only asked for the gradient has it as `gradient`, and `params` are where it started.
    """

    id: int  # of the job, in order of dispatch
    worker: int  # its id
    region: int  # of the worker
    start: Params  # what it trained from
    params: Params  # what it ended at (as its server sees it, if a lossy codec was in between)
    steps: int  # local steps
    start_time: float  # dispatch
    time: float  # arrival: the end of its compute, or of its push
    start_version: int  # of `start`, at the server it was committed to; if to none, `global_version`
    samples: tuple[int, int]  # positions in the order of its shard, the end exclusive
    lr_step: int  # learning-rate steps before its first local step
    losses: tuple[float, ...]  # training losses, each a mean; empty in timing mode
    chunks: tuple[int, ...]  # over how many steps each of them is
    compute: tuple[float, float]  # from when to when it computed
    server: Optional[int] = None  # the region of its server, of an asynchronous round trip
    factor: float = 1.0  # of `weights:`, as if all of its round were heard (without one, among the latest jobs)
    gradient: Optional[Params] = None  # the gradient at `start`, if that was all the job was asked for
    global_version: int = 0  # of the global model: of `start`, if that is one; else the latest at `start_time`
    delta_norm: float = math.nan  # ‖start − params‖₂ (of a gradient, its norm), before `factor`; NaN in timing mode
    computed: Optional[float] = None  # seconds, as the compute model says; None: what is between the two moments
    loss: Optional[float] = None  # training loss over all its steps, if its executor says it; see `train_loss`

    @property
    def seconds(self) -> float:
        """The seconds that it computed, also where they are too few to move the clock."""
        began, ended = self.compute
        return ended - began if self.computed is None else self.computed

    @property
    def delta(self) -> Params:
        """The pseudo-gradient, `factor · (start − params)`: subtracting it moves *towards* `params`."""
        difference = self.start - self.params if self.gradient is None else self.gradient
        return difference if self.factor == 1.0 else difference * self.factor

    @property
    def end(self) -> Params:
        """The parameters where it ends, as weighted: `start − delta`, which is `params` where the factor is 1."""
        return self.params if self.factor == 1.0 and self.gradient is None else self.start - self.delta

    @property
    def train_loss(self) -> Optional[float]:
        """The training loss, mean over all its steps: as its executor has it, or of the chunks; None if untrained."""
        known = self.loss is not None or not self.losses
        return self.loss if known else step_weighted(self.losses, self.chunks)

    def since(self, theta: Params) -> Params:
        """Return `factor · (theta − params)`: the pseudo-gradient as it is from `theta`, wherever it began."""
        if self.start is theta:
            return self.delta
        difference = theta - self.params
        return difference if self.factor == 1.0 else difference * self.factor

    def receipt(self) -> Update:
        """Return this update without its tensors (hollow, with their serials), for those who only count it later."""
        return self._replace(start=self.start.shell(), params=self.params.shell(), gradient=None)

    def as_line(self) -> UpdateLine:
        first, end = self.samples
        return UpdateLine(  # by position: this is the most frequent line
            self.id,
            self.time,
            self.worker,
            self.region,
            self.steps,
            self.start_time,
            self.start_version,
            self.global_version,
            self.delta_norm,
            first,
            end,
            self.lr_step,
            self.train_loss,
            self.losses,
            self.server,
        )


class Transfer(Record, frozen=True, gc=False):
    """Bytes on a link: from region `src` to region `dst`, or a collective over all (both None).

    `kind` is `pull`, `push`, `send` or `all_reduce`; `worker` whose pull or push it was. The bytes of an
    all-reduce among M workers are what the links of its ring carry in all: 2 (M−1) payloads, or M (M−1) if
    they cannot be summed under way; of a collective of several exchanges, those of all of them.
    """

    start_time: float  # when it began
    time: float  # its end
    src: Optional[int]  # a region; None in a collective
    dst: Optional[int]  # likewise
    bytes: int  # on the wire; of a collective, what the links of its ring carry in all
    kind: str  # `pull`, `push`, `send` or `all_reduce`
    worker: Optional[int] = None  # whose pull or push
    server: Optional[int] = None  # the region of its server


@dataclass(frozen=True, eq=False)
class Contribution:
    """Updates that a commit brings in together: computed from `base`, applied to `target`.

    `from_version` is the committing server's version that `base` belongs to: its own, if it was
    committed there, unless said otherwise.
    """

    updates: tuple[Update, ...] | list[Update]  # that it brings in
    base: Params  # what it was computed from
    target: Params  # what it is applied to
    from_version: Optional[int] = None  # the version that `base` belongs to, where it was not committed itself


class EndToEnd(Record, frozen=True, gc=False):
    """One update on its whole way: from where a worker began to the global model that takes it in."""

    staleness: int  # versions of the global model since `Update.global_version`
    seconds: float  # simulated, since the dispatch
    drift: float  # ‖the global model before this commit − the worker's start‖₂; NaN where that is not known


class Share(Record, frozen=True):
    """One contribution as it was committed: how old, and how far the model had moved meanwhile.

    The *hop* is what this server merged, from its own base: `hop_drift` = ‖target − base‖₂, `hop_staleness` in
    versions of the committing server. `end_to_end` tells it of each update, at the global server. Parameters are to
    be looked at, not kept: whoever keeps them keeps their memory.
    """

    updates: tuple[Update, ...]  # that it brought in
    from_version: int  # the server's version that `base` was; if it was none, that of the oldest start
    hop_staleness: int  # versions that server has had since
    hop_drift: float  # how far it had moved meanwhile; NaN in timing mode
    base: Params  # what it was computed from
    target: Params  # what it was applied to
    end_to_end: tuple[EndToEnd, ...] = ()  # of each update, in their order; none at other servers than the global one

    @property
    def steps(self) -> int:
        """Local steps of all its updates."""
        updates = self.updates
        return updates[0].steps if len(updates) == 1 else sum([update.steps for update in updates])

    def as_line(self) -> ShareLine:
        updates = self.updates
        if len(updates) == 1:  # by far the most frequent
            (update,) = updates
            ids, workers, factors = [update.id], [update.worker], [update.factor]
        else:
            ids = [update.id for update in updates]
            workers = [update.worker for update in updates]
            factors = [update.factor for update in updates]
        return ShareLine(
            ids,
            workers,
            factors,
            self.steps,
            self.from_version,
            self.hop_staleness,
            self.hop_drift,
            self.end_to_end,
        )


class Commit(Record, frozen=True):
    """A server's model changed: to `params`, now its version `version`.

    `kind` is `update` (something was contributed) or `merge` (the server took over another model;
    its version stays). `local_steps` counts what this server has committed so far.
    """

    time: float  # when
    version: int  # of the server, after it
    server: str  # `global`, or the name a policy gave
    kind: str  # `update`, or `merge` if nothing was contributed
    local_steps: int  # this server has committed so far
    shares: tuple[Share, ...]  # what was contributed
    params: Params  # the server's model now
    norm: float = math.nan  # ‖params‖₂; NaN in timing mode
    step_norm: float = math.nan  # ‖params − the server's model before‖₂; likewise

    def as_line(self) -> CommitLine:
        return CommitLine(
            self.time,
            self.version,
            self.server,
            self.kind,
            self.local_steps,
            self.norm,
            self.step_norm,
            [share.as_line() for share in self.shares],
        )


class Merge(NamedTuple):
    """A merge rule's step: with `state`, it took `params` to `after` along the pseudo-gradient `delta`.

    Told as it happens, by rules that a policy has in its fields; a commit of `after`, or of what `after` is a part of,
    may follow. Parameters are to be looked at, not kept.
    """

    time: float  # when
    rule: Any  # the merge rule
    params: Params  # before; of a fragment, those
    delta: Params  # what was merged: of an average, that
    state: Any  # the rule's, before
    after: Params  # the next parameters
    again: Callable[[Params], Params]  # what another pseudo-gradient would have led to instead; nobody is told of it

    @property
    def momentum(self) -> Optional[Params]:
        """The outer momentum before the step, as the rule says it (its method `momentum_of`); None: it has none."""
        says: Optional[Callable[[Any], Optional[Params]]] = getattr(self.rule, "momentum_of", None)
        return None if says is None else says(self.state)


class LostJob(Record, frozen=True, gc=False):
    """A job of which no update comes, since a fault took it or its message."""

    time: float  # when whoever awaits it is told
    worker: int  # its id
    region: int  # of the worker
    steps: int  # local steps that it was given
    start_time: float  # dispatch
    lost_time: float  # when it was lost; not before its dispatch
    why: str  # what took it, in words


class CutShort(NamedTuple):
    """A job of which no update came, lost or still under way at the end of the run; moments in virtual seconds."""

    worker: int
    began: float
    computes: float  # from then; infinite: not known, as it still pulls
    until: float  # then it pushes, if it does; likewise
    lost: float  # infinite: it is not
    steps: int = 0  # local ones that it was given

    def as_dict(self) -> dict[str, Any]:
        """Return it as the summary has it: moments that are infinitely far are None."""
        far = {key: None for key in ("computes", "until", "lost") if not math.isfinite(getattr(self, key))}
        return {**self._asdict(), **far}


@dataclass(frozen=True)
class Evaluation:
    """The loss of a model on one evaluation set, at one moment of the run, and other metrics by name."""

    time: float  # when
    version: int  # of the global server
    local_steps: int  # committed by the global server
    trained_steps: int  # of all updates that have arrived
    tokens: int  # they were trained on
    loss: float  # mean over the set, for language models in nats per token
    set: str  # `validation`, or a name from `evaluate.sets`
    of: str = GLOBAL  # or what a policy called the model
    # `perplexity`, `bits_per_byte`, `accuracy` (None where unknown), and what the model itself gives.
    metrics: dict[str, Optional[float]] = field(default_factory=dict)

    def as_line(self) -> Evaluation:
        return self

    def as_json(self) -> str:
        return text_of(self)


Summary = dict[str, Any]
DIVERGED = "diverged: "  # what `finished` begins with in the summary of a run that halos.Diverged has ended


def unfinished(summary: Summary) -> list[CutShort]:
    """Return the jobs that were under way when the run ended."""
    jobs = summary.get("unfinished", {}).get("jobs", ())
    far: dict[str, Any] = dict.fromkeys(("computes", "until", "lost"), math.inf)
    return [CutShort(**(far | {key: value for key, value in job.items() if value is not None})) for job in jobs]


def mean_loss(commit: Commit) -> Optional[float]:
    """Return the training loss of the updates in `commit`, each weighed by its local steps.

    None if there are none, or if it is not finite.
    """
    losses, steps = [], []
    for share in commit.shares:
        for update in share.updates:
            loss = update.train_loss
            if loss is not None:
                losses.append(loss)
                steps.append(update.steps)
    mean = step_weighted(losses, steps)
    return mean if mean is not None and math.isfinite(mean) else None
