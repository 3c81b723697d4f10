"""Merge rules that tell of their steps: which ones, of what, and nothing left behind."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from halos.config.config import resolved
from halos.hooks import hookimpl
from halos.rules.merge import SGD, Adam, DelayedNesterov, MergeRule, Nesterov
from halos.rules.telling import merge_rules, telling
from halos.run.assembly import assemble
from halos.testing import record, tiny
from halos.testing.recording import UNWRITTEN
from halos.values.params import Layout, Params
from halos.values.records import Merge

LAYOUT = Layout({"theta": (1,)}, torch.float64)


def one(value: float) -> Params:
    return Params(LAYOUT, torch.tensor([value], dtype=torch.float64))


def of(params: Any) -> float:
    return float(params.flat[0])


@dataclass(frozen=True)
class Inside:
    """A rule around another."""

    of: MergeRule = field(default_factory=SGD)

    def init(self, params: Params) -> Any:
        return self.of.init(params)

    def step(self, params: Params, delta: Params, state: Any, **more: Any) -> tuple[Params, Any]:
        return self.of.step(params, delta, state, **more)


@dataclass
class Several:
    outer: MergeRule = field(default_factory=Nesterov)
    by_region: list[MergeRule] = field(default_factory=lambda: [SGD(), Adam()])
    named: dict[str, MergeRule] = field(default_factory=lambda: {"one": Inside()})
    share: float = 0.5


@dataclass(frozen=True)
class Slotted:
    """It takes no attributes."""

    __slots__ = ()

    def init(self, params: Params) -> None:
        return None

    def step(self, params: Params, delta: Params, state: None, **more: Any) -> tuple[Params, None]:
        return params - delta, None


def test_all_rules_in_fields_are_found_but_not_those_inside_another() -> None:
    policy = Several()
    assert list(merge_rules(policy)) == [policy.outer, *policy.by_region, policy.named["one"]]


def test_a_step_is_told_with_what_there_was_before_and_after() -> None:
    # Nesterov, lr 0.5, μ 0.5, Δ = 1 twice from 0: v = 1, θ = −½ (1 + ½) = −0.75; v = 1.5, θ = −0.75 − ½ (1 + 0.75).
    policy, told = Several(outer=Nesterov(lr=0.5, momentum=0.5)), []
    theta, state = one(0.0), policy.outer.init(one(0.0))
    with telling(policy, lambda: 7.0, told.append):
        theta, state = policy.outer.step(theta, one(1.0), state)
        theta, state = policy.outer.step(theta, one(1.0), state, base=theta, staleness=1)
    policy.outer.step(theta, one(1.0), state)  # nobody is told of this one
    assert [(each.time, of(each.params), of(each.delta), of(each.state), of(each.after)) for each in told] == [
        (7.0, 0.0, 1.0, 0.0, -0.75),
        (7.0, -0.75, 1.0, 1.0, -1.625),
    ]
    assert all(each.rule is policy.outer for each in told)
    # Had the second been 2: v = 2.5, θ = −0.75 − ½ (2 + 1.25); it is still nobody's but the first two.
    assert of(told[1].again(one(2.0))) == -2.375 and len(told) == 2
    assert vars(policy.outer) == {"lr": 0.5, "momentum": 0.5}


def test_a_rule_that_takes_no_attributes_is_not_heard_and_works() -> None:
    policy, told = Several(outer=Slotted()), []  # type: ignore[arg-type]
    with telling(policy, lambda: 0.0, told.append):
        assert of(policy.outer.step(one(3.0), one(1.0), None)[0]) == 2.0
    assert told == []


class Aged:
    """A rule of one's own: with one more argument than others, by place, and a `step` of the instance itself."""

    def __init__(self) -> None:
        self.step = self.by_age

    def init(self, params: Params) -> None:
        return None

    def by_age(self, params: Params, delta: Params, state: Any, age: int = 0) -> tuple[Params, Any]:
        return params - delta / (1 + age), state


class Ticking:
    """No merge rule, whatever its methods are called."""

    def __init__(self) -> None:
        self.ticks = 0

    def init(self) -> None:
        self.ticks = 0

    def step(self) -> int:
        self.ticks += 1
        return self.ticks


@dataclass
class Strange:
    aged: Aged = field(default_factory=Aged)
    ticking: Ticking = field(default_factory=Ticking)
    outer: MergeRule = field(default_factory=SGD)
    peers: list[Any] = field(default_factory=list)


def test_whatever_is_called_otherwise_goes_on_as_it_was() -> None:
    policy, told = Strange(), []
    policy.peers += [policy, policy.peers, SGD(lr=2.0)]  # it holds itself
    own, theta = policy.aged.step, one(6.0)
    with telling(policy, lambda: 0.0, told.append):
        assert of(policy.aged.step(theta, one(4.0), None, 1)[0]) == 4.0
        assert (policy.ticking.step(), policy.ticking.step()) == (1, 2)
        assert of(policy.outer.step(state=None, delta=one(1.0), params=theta)[0]) == 5.0
        assert of(policy.peers[2].step(theta, one(1.0), state=None)[0]) == 4.0
    assert policy.aged.step == own
    assert [of(each.after) for each in told] == [4.0, 5.0, 4.0]
    # Δ = 2 instead: 6 − 2/2, 6 − 2 and 6 − 2·2.
    assert [of(each.again(one(2.0))) for each in told] == [5.0, 4.0, 2.0]


def test_the_momentum_is_what_the_rule_says_it_is() -> None:
    # After Δ = 1 from nothing: Nesterov's v = 1; of two pseudo-gradients a step, m is still 0, and ½ after the second
    # (D / N = 2 / 2, so 1); Adam's first moment is 0.1; SGD has none.
    def momentum(rule: Any, steps: int) -> Any:
        theta, state = one(0.0), rule.init(one(0.0))
        for _ in range(steps):
            theta, state = rule.step(theta, one(1.0), state)
        return Merge(0.0, rule, theta, one(1.0), state, theta, lambda other: other).momentum

    assert of(momentum(Nesterov(), 1)) == 1.0
    assert of(momentum(DelayedNesterov(buffer=2), 1)) == 0.0
    assert of(momentum(DelayedNesterov(buffer=2), 2)) == 1.0
    assert abs(of(momentum(Adam(), 1)) - 0.1) < 1e-15
    assert momentum(SGD(), 1) is None
    assert momentum(Inside(), 1) is None


class Hearing:
    def __init__(self) -> None:
        self.merges: list[Merge] = []

    @hookimpl
    def on_merge(self, merge: Merge) -> None:
        self.merges.append(merge)


def test_in_a_run_every_step_is_heard_and_the_run_is_the_same() -> None:
    sections = tiny(policy={"outer": {"name": "nesterov", "lr": 0.5, "momentum": 0.5}})
    hearing = Hearing()
    config, found = resolved(sections | UNWRITTEN)
    with closing(assemble(config, found)) as run:
        found.manager.register(hearing)
        run.train()
        theta = run.simulation.params
    deaf = record(sections).simulation.params
    assert deaf.flat is not None and theta.flat is not None and torch.equal(deaf.flat, theta.flat)
    assert [merge.time for merge in hearing.merges] == [2.0, 4.0]
    assert hearing.merges[-1].after is theta
