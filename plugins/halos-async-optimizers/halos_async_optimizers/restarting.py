"""Workers of one asynchronous server, which start again as soon as their update is there."""

from __future__ import annotations

from collections.abc import Callable

from halos import Lost, Params, Simulation, Update, Worker


async def restarting(
    sim: Simulation, worker: Worker, region: int, begins: Callable[[Worker], Params], take: Callable[[Update], None]
) -> None:
    """Let a worker train, again and again, from what `begins` says, and hand its updates to `take`, at the server.

    The server is in `region`, by index. An update that is lost is one less: the worker starts again once it is up and
    reaches the server.
    """
    while not sim.done:
        try:
            take(await sim.train(worker, begins(worker), server=region))  # nobody here holds an update, or its start
        except Lost:
            await sim.faults.returned(worker, region)
