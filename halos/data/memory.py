"""How much memory there is, to look before any of it is taken."""

from __future__ import annotations

import os
from typing import Optional

from halos.errors import ConfigError


def check(key: str, what: str, needed: int) -> None:
    """ConfigError for `key` if `what` needs more bytes than are free."""
    free = available()
    if free is not None and needed > free:
        raise ConfigError(key, f"{what} takes {_size(needed)} of memory, {_size(free)} are free")


def available() -> Optional[int]:
    """Free memory of this machine (or what its container may have at most, if that is less) in bytes, if it says so."""
    known = [limit for limit in (_free(), _container_limit()) if limit is not None]
    return min(known, default=None)


def _free() -> Optional[int]:
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _container_limit() -> Optional[int]:
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(file) as limit:
                return int(limit.read())
        except (OSError, ValueError):  # no such file, or `max`
            continue
    return None


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
