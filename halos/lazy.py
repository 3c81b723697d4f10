"""PyTorch and NumPy, loaded when they are first used: a command's help, or a mistake in a config, needs neither.

`halos/__init__.py` imports this module before all others. From then on `import torch` gives a module
whose code runs when something is first asked of it (`torch.add`), or when one of its submodules is
imported; afterwards it is a module like any other, and asking costs what it always does. So what is
to be loaded fast says `import torch` at its top, and not `from torch import Tensor`.

The standard library's `LazyLoader` does not do: a second `import torch` already loads the module, and
`import torch.nn` runs the submodule twice. Here the import system itself loads what was put off, into
the module that was given out, with its own locks for threads.
"""

from __future__ import annotations

import _thread
import importlib.util
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Optional

HEAVY = ("torch", "numpy")

# What `import torch` itself asks of a module, and who looks through sys.modules.
_IN_PASSING = frozenset(("__class__", "__spec__", "__name__", "__package__", "__file__", "__loader__"))
_put_off: dict[str, ModuleType] = {}  # not run, or not to the end
_untouched: set[str] = set()  # of these, the ones nobody has begun to run
_threads: dict[str, int] = {}  # who is running one
_beginning = threading.Lock()


class _Lazy(ModuleType):
    """A module that has not been run; its class is ModuleType as soon as it has."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _IN_PASSING:
            _load(self, wait=name != "__path__")  # asked for an import of a submodule, which would not wait either
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _IN_PASSING:
            _load(self)
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _load(self)
        ModuleType.__delattr__(self, name)


def _load(module: ModuleType, wait: bool = True) -> None:
    """Have it imported, unless this thread is at it; if another is, `wait` for it."""
    name = module.__name__
    if _threads.get(name) == threading.get_ident():
        return
    with _beginning:
        begin = name in _untouched
        if begin:
            _untouched.remove(name)
            del sys.modules[name]
    if begin or wait:
        __import__(name)  # this one, unlike importlib's, gets out of a deadlock of two threads' imports


@contextmanager
def _signals_wait(name: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM are heard when `name` is imported: of half of PyTorch a second import fails, or crashes."""
    came: list[signal.Signals] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # in others nobody is interrupted, and none may be set
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):  # neither ignored nor the end of the process
                handlers[number] = signal.signal(number, lambda number, _: came.append(signal.Signals(number)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:  # raised in here, it would have the import system forget the module
        threading.Thread(target=_interrupt, args=(name, came[0])).start()


def _interrupt(name: str, number: signal.Signals) -> None:
    __import__(name)  # waits for the thread that is still at it
    _thread.interrupt_main(number)


class _Into(Loader):
    """Loads into the module that was given out."""

    def __init__(self, module: ModuleType, loader: Loader) -> None:
        self._module, self._loader = module, loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _threads[spec.name] = threading.get_ident()
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "the one it was found by"
        name = module.__name__
        module.__spec__.loader = module.__loader__ = self._loader
        try:
            with _signals_wait(name):
                self._loader.exec_module(module)
                module.__class__ = ModuleType
                del _put_off[name]
        finally:
            del _threads[name]


class _There(Loader):
    """Has nothing to do: importing the package, first, has imported the submodule too."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if name in _put_off:
            module = _put_off[name]
            spec = module.__spec__
            assert spec is not None and spec.loader is not None, "or it would not have been put off"
            spec.loader = _Into(module, spec.loader)
            return spec
        there = sys.modules.get(name)
        if there is not None and target is None and name.partition(".")[0] in HEAVY:  # a target would be a reload
            return ModuleSpec(name, _There(there))
        return None


def put_off(name: str) -> None:
    """Let `import name` give a module that is not run; nothing happens if it has been imported, or is missing."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Lazy
        _put_off[name] = sys.modules[name] = module
        _untouched.add(name)


for _name in HEAVY:
    put_off(_name)
sys.meta_path.insert(0, _Finder())
