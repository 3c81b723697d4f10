"""Virtual time, in tiny models."""

from __future__ import annotations

import math
from typing import Any

import pytest

from halos.errors import Lost
from halos.sim.clock import Clock, Deadlock, Event, all_of, arrived, first_of


def run(*coroutines: Any, clock: Clock, until: float = float("inf")) -> None:
    for coroutine in coroutines:
        clock.spawn(coroutine)
    clock.run(until)


def test_two_cars_drive_and_park_in_order_of_virtual_time() -> None:
    clock, log = Clock(), []

    async def car(name: str, drive: float, park: float) -> None:
        for _ in range(2):
            await clock.timeout(drive)
            log.append((clock.now, name, "parks"))
            await clock.timeout(park)
            log.append((clock.now, name, "drives"))

    run(car("a", 2, 3), car("b", 4, 1), clock=clock)
    assert log == [
        (2, "a", "parks"),
        (4, "b", "parks"),
        (5, "a", "drives"),  # both at 5: a's was scheduled first, at 2
        (5, "b", "drives"),
        (7, "a", "parks"),
        (9, "b", "parks"),
        (10, "a", "drives"),
        (10, "b", "drives"),
    ]


def test_ties_happen_in_scheduling_order() -> None:
    clock, log = Clock(), []

    async def process(number: int) -> None:
        await clock.timeout(1.0)
        log.append(number)

    run(*(process(number) for number in range(5)), clock=clock)
    assert log == [0, 1, 2, 3, 4]


def test_a_timed_events_value_is_produced_when_it_happens_not_before() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        event = clock.timeout(3.0, lambda: clock.now)
        await clock.timeout(1.0)
        log.append(event.done)
        log.append(await event)

    run(process(), clock=clock)
    assert log == [False, 3.0]


def test_awaiting_what_has_happened_goes_on_at_once() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        early = clock.timeout(1.0, lambda: "early")
        await clock.timeout(5.0)
        log.append((clock.now, await early))

    run(process(), clock=clock)
    assert log == [(5.0, "early")]


def test_not_awaiting_yet_is_overlap() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        transfer = clock.timeout(3.0)
        await clock.timeout(2.0)  # compute meanwhile
        await transfer
        log.append(clock.now)

    run(process(), clock=clock)
    assert log == [3.0]


def test_a_process_is_an_event_with_the_value_it_returns() -> None:
    clock, log = Clock(), []

    async def inner() -> str:
        await clock.timeout(2.0)
        return "result"

    async def outer() -> None:
        log.append((await clock.spawn(inner()), clock.now))

    run(outer(), clock=clock)
    assert log == [("result", 2.0)]


def test_all_of_gives_values_in_the_order_asked_for_at_the_time_of_the_last() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        log.append(await all_of(clock.timeout(seconds, lambda s=seconds: s) for seconds in (3.0, 1.0, 2.0)))
        log.append(clock.now)

    run(process(), clock=clock)
    assert log == [[3.0, 1.0, 2.0], 3.0]


def test_first_of_gives_the_event_that_happened_first() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        slow, fast = clock.timeout(3.0), clock.timeout(1.0)
        log.append(await first_of([slow, fast]) is fast)
        log.append(clock.now)

    run(process(), clock=clock)
    assert log == [True, 1.0]


def test_an_error_is_raised_in_whoever_awaits_it_and_all_of_passes_on_the_first() -> None:
    clock, log = Clock(), []

    async def waiter(event: Event[Any]) -> None:
        try:
            await all_of([clock.timeout(9.0), event])
        except ValueError as error:
            log.append((str(error), clock.now))

    async def breaker(event: Event[Any]) -> None:
        await clock.timeout(1.0)
        event.fail(ValueError("broken"))

    event: Event[Any] = Event(clock)
    run(waiter(event), breaker(event), clock=clock)
    assert log == [("broken", 1.0)]


def test_an_error_in_a_process_nobody_awaits_ends_the_run_with_its_own_frame() -> None:
    clock = Clock()

    async def a_bad_policy() -> None:
        await clock.timeout(1.0)
        raise KeyError("typo")

    with pytest.raises(KeyError, match="typo") as caught:
        run(a_bad_policy(), clock=clock)
    assert caught.traceback[-1].name == "a_bad_policy"
    assert clock.now == 1.0


def test_an_error_in_an_awaited_process_reaches_the_awaiter() -> None:
    clock, log = Clock(), []

    async def child() -> None:
        await clock.timeout(1.0)
        raise ValueError("in the child")

    async def parent() -> None:
        try:
            await clock.spawn(child())
        except ValueError as error:
            log.append(str(error))

    run(parent(), clock=clock)
    assert log == ["in the child"]


def test_a_deadlock_names_the_waiter_and_its_line() -> None:
    clock = Clock()

    async def forgetful() -> None:
        await Event(clock)  # nobody ever fires it

    async def outer() -> None:
        await forgetful()

    with pytest.raises(Deadlock, match=r"1 process\(es\) still wait: .*forgetful \(.*test_clock\.py:\d+\)"):
        run(outer(), clock=clock)


def test_the_run_ends_at_the_moment_it_is_told_to_and_what_is_due_then_still_happens() -> None:
    clock, log = Clock(), []

    async def ticks() -> None:
        while True:
            await clock.timeout(1.0)
            log.append(clock.now)

    run(ticks(), clock=clock, until=3.0)
    assert log == [1.0, 2.0, 3.0]
    clock = Clock()
    log.clear()
    run(ticks(), clock=clock, until=2.5)
    assert (log, clock.now) == ([1.0, 2.0], 2.5)


def test_stop_ends_the_run_after_the_process_that_asked_for_it() -> None:
    clock, log = Clock(), []

    async def stopper() -> None:
        await clock.timeout(1.0)
        clock.stop()
        log.append("said")

    async def other() -> None:
        await clock.timeout(1.0)
        log.append("never")

    run(stopper(), other(), clock=clock)
    assert log == ["said"]


def test_closing_runs_the_finally_blocks_of_what_still_waits() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        try:
            await clock.timeout(10.0)
        finally:
            log.append("closed")

    run(process(), clock=clock, until=1.0)
    clock.close()
    assert log == ["closed"]


def test_three_thousand_chained_processes_do_not_overflow_the_stack() -> None:
    clock, log = Clock(), []

    async def link(previous: Event[Any]) -> None:
        await previous

    async def chain() -> None:
        last: Event[Any] = clock.timeout(1.0)
        for _ in range(3000):
            last = clock.spawn(link(last))
        await last
        log.append(clock.now)

    run(chain(), clock=clock)
    assert log == [1.0]


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_time_does_not_run_backwards(seconds: float) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Clock().timeout(seconds)


def test_awaiting_something_else_says_what_can_be_awaited() -> None:
    import asyncio

    clock = Clock()

    async def confused() -> None:
        await asyncio.sleep(0)

    with pytest.raises(
        TypeError, match="confused awaits something that yields None; a process awaits only events of its clock"
    ):
        run(confused(), clock=clock)


def test_errors_that_nobody_looks_at_any_more_end_the_run_too() -> None:
    async def fails(clock: Clock, after: float) -> None:
        await clock.timeout(after)
        raise ValueError(f"at {after}")

    async def forgets(clock: Clock) -> None:
        all_of([clock.spawn(fails(clock, 1.0)), clock.timeout(9.0)])  # never awaited
        await clock.timeout(20.0)

    async def takes_the_first(clock: Clock) -> None:
        await first_of([clock.timeout(1.0), clock.spawn(fails(clock, 2.0))])
        await clock.timeout(20.0)

    for process, message in ((forgets, "at 1.0"), (takes_the_first, "at 2.0")):
        clock = Clock()
        with pytest.raises(ValueError, match=message):
            run(process(clock), clock=clock)


def test_a_loss_that_nobody_waits_for_is_no_error() -> None:
    clock = Clock()

    async def process() -> None:
        Event(clock).fail(Lost("transfer 3", 1.0, "the link was down"))
        await clock.timeout(1.0)

    run(process(), clock=clock)
    assert clock.now == 1.0


def test_what_arrived_is_known_when_all_have_arrived_or_are_lost() -> None:
    clock, log = Clock(), []

    def lose() -> str:
        raise Lost("a job", clock.now, "its worker was down")

    async def waits() -> None:
        several = [clock.timeout(2.0, lambda: "a"), clock.timeout(5.0, lose), clock.timeout(3.0, lambda: "b")]
        log.append((await arrived(several), clock.now))
        log.append((await arrived([clock.timeout(1.0, lose)]), clock.now))
        with pytest.raises(Lost, match=r"^a job lost at 7 s: its worker was down$"):
            await all_of([clock.timeout(1.0, lose), clock.timeout(2.0, lambda: "c")])

    run(waits(), clock=clock)
    assert log == [(["a", "b"], 5.0), ([], 6.0)]


def test_what_arrived_is_an_error_if_there_was_one_beside_losses() -> None:
    clock = Clock()

    async def fails() -> None:
        await clock.timeout(1.0)
        raise KeyError("x")

    async def waits() -> None:
        await arrived([clock.spawn(fails()), clock.timeout(2.0)])

    with pytest.raises(KeyError):
        run(waits(), clock=clock)
    assert clock.now == 1.0


def test_a_loss_in_a_process_nobody_awaits_ends_the_run() -> None:
    clock = Clock()

    def lose() -> None:
        raise Lost("a job", clock.now, "its worker was down")

    async def works() -> None:
        await clock.timeout(1.0, lose)

    async def waits() -> None:
        await clock.timeout(5.0)

    with pytest.raises(Lost):
        run(works(), waits(), clock=clock)
    assert clock.now == 1.0


def test_what_is_infinitely_far_never_happens() -> None:
    clock = Clock()

    async def waits() -> None:
        await clock.timeout(float("inf"))

    clock.spawn(waits())
    clock.run(until=10.0)
    assert clock.now == 10.0
    with pytest.raises(Deadlock, match="nothing is left to happen at 10 s"):
        clock.run()


def test_an_event_at_a_moment_is_there_to_the_last_bit() -> None:
    clock, log = Clock(), []
    now, moment = 1.6 + 0.1, 1.6 + 11.7
    assert now + (moment - now) < moment

    async def process() -> None:
        await clock.timeout(now)
        log.append(await clock.at(moment, lambda: clock.now))

    run(process(), clock=clock)
    assert log == [moment]


def test_no_event_is_at_a_moment_that_is_over() -> None:
    clock = Clock()

    async def process() -> None:
        await clock.timeout(2.0)
        await clock.at(2.0)
        with pytest.raises(ValueError, match=r"an event cannot be at 1\.5 s, which is over at 2\.0 s"):
            clock.at(1.5)
        with pytest.raises(ValueError, match="an event cannot be at nan s"):
            clock.at(math.nan)

    run(process(), clock=clock)
    assert clock.now == 2.0


def test_the_last_event_of_a_moment_comes_after_what_is_late_by_a_rounding_error() -> None:
    clock, log = Clock(), []
    assert 0.1 + 0.2 > 0.3

    async def ends() -> None:
        await clock.at(0.3, last=True)
        log.append(("end", clock.now))

    async def arrives(*seconds: float) -> None:
        for each in seconds:
            await clock.timeout(each)
        log.append((len(seconds), clock.now))

    run(ends(), arrives(0.1, 0.2), arrives(0.3), clock=clock)
    assert log == [(1, 0.3), (2, 0.1 + 0.2), ("end", 0.1 + 0.2)]
    clock, log = Clock(), []
    run(ends(), arrives(0.1, 0.2000001), clock=clock)
    assert log[0] == ("end", 0.3)


def test_what_is_due_at_the_end_happens_though_it_is_late_by_a_rounding_error() -> None:
    clock, log = Clock(), []

    async def process() -> None:
        while True:
            await clock.timeout(0.1)
            log.append(clock.now)

    clock.spawn(process())
    clock.run(until=0.3)
    assert log == [0.1, 0.2, 0.3]  # 0.1 + 0.1 + 0.1 is 0.30000000000000004
    assert clock.now == 0.3
    clock.close()


def test_an_event_that_is_made_to_happen_has_what_it_produces_or_the_error() -> None:
    clock, told = Clock(), []

    def fails() -> int:
        raise ValueError("no")

    good, bad = Event(clock, lambda: 7), Event(clock, fails)

    async def waits() -> None:
        told.append(await good)
        with pytest.raises(ValueError, match="no"):
            await bad
        told.append(clock.now)

    clock.spawn(waits())
    clock.at(2.0, good.happen)
    clock.at(3.0, bad.happen)
    clock.run()
    assert told == [7, 3.0]


def test_an_error_of_an_event_that_is_made_to_happen_and_nobody_awaits_ends_the_run() -> None:
    clock = Clock()

    def fails() -> int:
        raise ValueError("no")

    async def waits() -> None:
        await clock.at(5.0)

    clock.spawn(waits())
    clock.at(2.0, Event(clock, fails).happen)
    with pytest.raises(ValueError, match="no"):
        clock.run()
