"""The marks by which plugins are known: `@hookimpl` on what they implement, `register` for what they bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

Register = Callable[[str, type[Any]], None]

hookspec = pluggy.HookspecMarker("halos")
hookimpl = pluggy.HookimplMarker("halos")
