"""The Ray cluster that a run joins, or starts for itself, and what it has room for."""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from halos import ConfigError, UserError, cores, require

QUIET = {  # in the environment of all that is started here
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no notice that a default will change
    "RAY_worker_niceness": "0",  # actors are as important as whatever else this machine does
}


def library() -> Any:
    """Return the `ray` module. Raises UserError if it is not installed."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("executor ray: Ray is not installed; pip install 'ray>=2.50'") from None


PATIENCE = 5.0  # seconds for a connection


class Cluster:
    """A connection of this process to a Ray cluster; one that was started here ends with it."""

    def __init__(self, address: Optional[str], slots: Optional[int], cpus: float, gpus: float) -> None:
        """Join the cluster at `address` (see the executor), or start one with so many slots of so many CPUs and GPUs.

        Without `slots` it has this machine's. Raises ConfigError if it cannot be joined.
        """
        self._ray = library()
        self._ours = not self._ray.is_initialized()
        self._slot = {name: each for name, each in (("CPU", cpus), ("GPU", gpus)) if each}
        if not self._ours:
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray").setLevel(logging.ERROR)  # before it logs how it starts
        importlib.import_module("ray._private.worker")._worker_logs_enabled = False  # what dies is said here, in a line
        own = {"num_cpus": cores() if slots is None else math.ceil(slots * cpus)}
        if slots is not None and gpus:
            own["num_gpus"] = math.ceil(slots * gpus)
        with _handlers_kept():
            if address in (None, "auto"):
                try:
                    self._init("auto")
                    return
                except ConnectionError:
                    if address or os.environ.get("RAY_ADDRESS"):
                        raise ConfigError(
                            "address",
                            f"no Ray cluster answers at {os.environ.get('RAY_ADDRESS') or 'this machine'}; ray start"
                            " --head begins one, and address=local one that ends with the run",
                        ) from None
                address = "local"
            if address != "local":
                reach(address)
            try:
                self._init(address, **({"_node_ip_address": "127.0.0.1", **own} if address == "local" else {}))
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                said = " ".join(str(error).split())
                raise ConfigError("address", f"{address!r}: {said or type(error).__name__}") from error

    def _init(self, address: str, **own: Any) -> None:
        self._ray.init(
            address,
            include_dashboard=False if own else None,
            configure_logging=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **own,
        )

    def slots(self, wanted: Optional[int]) -> int:
        """Return `wanted`, or how many slots are free, at least one. Raises ConfigError if there are not so many."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        total = sum(_fits(resources, self._slot) for resources in nodes)
        if not total:
            each = " and ".join(f"{number:g} {name}" for name, number in self._slot.items())
            raise ConfigError("actors", f"no machine of the cluster has {each} for one; see cpus_per_actor")
        if wanted is not None:
            require(wanted <= total, "actors", wanted, f"at most {total}, for which the cluster has room")
            return wanted
        return max(1, min(total, _fits(self._ray.available_resources(), self._slot)))

    def alive(self, node: str) -> bool:
        """Whether a node, by its id, is known to be alive."""
        return any(each["NodeID"] == node and each["Alive"] for each in self._ray.nodes())

    def close(self) -> None:
        """Leave it; what was started here ends."""
        if self._ours and self._ray.is_initialized():
            with _handlers_kept():
                self._ray.shutdown()


def reach(address: str) -> None:
    """Raise ConfigError if nobody answers at host:port, which Ray would find out in a minute or two."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError("address", f"nobody answers at {address!r} ({error}); it is host:port of a cluster") from None


def _fits(resources: dict[str, float], slot: dict[str, float]) -> int:
    """How many slots there are in these resources."""
    return int(min(resources.get(name, 0.0) / each for name, each in slot.items()))


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ctrl-C and SIGTERM mean afterwards what they meant before: Ray has handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # not Python's
                signal.signal(number, handler)
