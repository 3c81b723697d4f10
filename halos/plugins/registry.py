"""Find plugins (installed packages, modules, single files) and register what they bring by kind and name."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import os
import platform
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Optional

import pluggy
import torch

from halos.data import DataSource
from halos.errors import UserError, did_you_mean, from_here, shown
from halos.models import Model
from halos.observers.observer import Observer
from halos.plugins import hookspecs
from halos.plugins.loading import load_plugin, reason, source, sources, unique
from halos.rules.aggregate import Aggregator
from halos.rules.codecs import Codec
from halos.rules.merge import MergeRule
from halos.rules.steps import StepAllocation
from halos.rules.weights import ContributionWeights
from halos.sim.simulation import SyncPolicy
from halos.training import Executor
from halos.training.optimizers import InnerOptimizer
from halos.world.compute import ComputeModel
from halos.world.faults import FaultModel
from halos.world.network import NetworkModel

ENTRY_POINTS = "halos"
ADD = "a plugin's file is added with --plugin FILE"  # what an unknown name may come from

try:
    VERSION = importlib.metadata.version("halos-simulator")
except importlib.metadata.PackageNotFoundError:  # a checkout nobody installed
    VERSION = "unknown"

# kind → (the Protocol a config field is annotated with, the hook that registers its components)
KINDS: dict[str, tuple[type[Any], str]] = {
    "policy": (SyncPolicy, "register_sync_policies"),
    "merge rule": (MergeRule, "register_merge_rules"),
    "network model": (NetworkModel, "register_network_models"),
    "step allocation": (StepAllocation, "register_step_allocations"),
    "contribution weights": (ContributionWeights, "register_contribution_weights"),
    "aggregator": (Aggregator, "register_aggregators"),
    "compute model": (ComputeModel, "register_compute_models"),
    "codec": (Codec, "register_codecs"),
    "fault model": (FaultModel, "register_fault_models"),
    "model": (Model, "register_models"),
    "data source": (DataSource, "register_data_sources"),
    "executor": (Executor, "register_executors"),
    "inner optimizer": (InnerOptimizer, "register_inner_optimizers"),
    "observer": (Observer, "register_observers"),
}
FOLDERS = ("policies", "rules", "world", "models", "data", "training")  # some modules in them register components


@functools.cache
def built_in() -> tuple[str, ...]:
    """The modules of halos that register components, as any plugin does."""
    core = Path(__file__).parents[1]
    files = [file for folder in FOLDERS for file in sorted((core / folder).rglob("[!_]*.py"))]
    registering = [file.relative_to(core) for file in files if b"\n@hookimpl\n" in file.read_bytes()]
    return tuple(".".join(("halos", *file.with_suffix("").parts)) for file in registering)


@dataclass(frozen=True)
class Component:
    """A registered class, and where it comes from (for `--list-plugins` and error messages)."""

    kind: str
    name: str
    cls: type[Any]
    origin: str

    @property
    def summary(self) -> str:
        """The first line of its docstring; empty if it has none."""
        return docstring(self.cls).split("\n")[0]


def docstring(cls: type[Any]) -> str:
    """Return the docstring that the author of a class (or of a base) wrote, not the one that `dataclass` makes."""
    for base in cls.__mro__[:-1]:
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        if text and not text.startswith(f"{base.__name__}("):
            return text
    return ""


class Manager(pluggy.PluginManager):
    """Pluggy's, which knows at a glance what in a module is no hook: nearly all, and a run has thousands."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if isinstance(plugin, types.ModuleType):
            value = vars(plugin).get(name)
            if isinstance(value, types.FunctionType) and not hasattr(value, "halos_impl"):
                return None
            if not isinstance(value, (types.FunctionType, types.MethodType, staticmethod, classmethod)):
                return None
        return super().parse_hookimpl_opts(plugin, name)


class Plugins:
    """The plugins of one run: a fresh pluggy manager, and the components by kind and name.

    Beside those of halos, all of installed packages but those named in `without`, and `extra` files and modules.
    """

    def __init__(self, extra: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        self.manager = Manager("halos")
        self.manager.add_hookspecs(hookspecs)
        self._origins: dict[int, str] = {}
        self._loaded: list[tuple[Any, str]] = []
        self.listening: list[Any] = []  # components of the run that hear what happens
        self._names: dict[type[Any], str] = {}
        for name in built_in():
            self._add(importlib.import_module(name), "halos")
        self._installed: dict[int, str] = {}  # plugin → the package that it came with
        self._without = {canonical(name): name for name in without}
        self._add_installed()
        for name in unique(extra):
            if self._is_installed(name):
                continue
            plugin = load_plugin(name)
            self._add(plugin, name)
            if not self.manager.get_hookcallers(plugin):
                raise UserError(
                    f"plugin {from_here(name)} implements no hook; see halos/plugins/hookspecs.py and mark functions"
                    " @hookimpl"
                )
        self._check_pending()
        self.components: dict[str, dict[str, Component]] = {kind: {} for kind in KINDS}
        for kind, (_, hook) in KINDS.items():
            for implementation in getattr(self.manager.hook, hook).get_hookimpls():
                self._register(kind, implementation)

    def find(self, kind: str, name: str) -> type[Any]:
        """The class registered as `name`; a UserError that lists what there is."""
        known = self.components[kind]
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(
                f"{shown(name)} is not installed{near}; installed: {', '.join(sorted(known)) or 'none'}; {ADD}"
            )
        return known[name].cls

    def name_of(self, cls: type[Any]) -> Optional[str]:
        """The name a component class is registered under, if it is one."""
        return self._names.get(cls)

    def listen(self, component: Any) -> None:
        """Let a component hear what happens, if it has methods marked `@hookimpl` (as an allocation that measures).

        Likewise the components inside it.
        """
        for inner in dataclass_fields(component) if is_dataclass(component) else ():
            value = getattr(component, inner.name, None)
            if is_dataclass(value) and not isinstance(value, type):
                self.listen(value)
        if any(hasattr(getattr(type(component), name, None), "halos_impl") for name in dir(type(component))):
            self.manager.register(component)
            self.listening.append(component)

    def versions(self, watching: bool = True) -> dict[str, str]:
        """`{plugin: hash of its source}` of everything that is not part of halos itself.

        Without those that are only `watching`, if so wanted: a run is the same without them.
        """
        sources: dict[str, list[bytes]] = {}
        for plugin, origin in self._loaded:
            if origin != "halos" and (watching or not self._only_watches(plugin)):
                sources.setdefault(origin, []).append(source(plugin))
        return {
            origin: f"sha256:{hashlib.sha256(b''.join(several)).hexdigest()[:16]}" if any(several) else "unknown"
            for origin, several in sources.items()
        }

    def _only_watches(self, plugin: Any) -> bool:
        """Whether a plugin brings nothing but observers."""
        hooks = [caller.name for caller in self.manager.get_hookcallers(plugin) or ()]
        return all(name == "register_observers" or name.startswith("on_") for name in hooks)

    def _add_installed(self) -> None:
        """Load the plugins of installed packages but those left out. Raises UserError if one of these is not there."""
        installed, without = {}, self._without
        for distribution in importlib.metadata.distributions():
            for entry in distribution.entry_points:
                if entry.group == ENTRY_POINTS:
                    package = distribution.metadata["Name"]
                    installed[canonical(package)] = package
                    if canonical(package) in without:
                        continue
                    origin = f"{package} {distribution.version}"
                    try:
                        plugin = entry.load()
                    except (Exception, SystemExit) as error:
                        raise UserError(
                            f"plugin {origin} cannot be loaded: {reason(error)}{_left_out(package)}"
                        ) from error
                    self._installed[id(plugin)] = package
                    self._add(plugin, origin)
        for name in without:
            if name not in installed:
                known = installed.values()
                raise UserError(
                    f"--without-plugin: {shown(without[name])} is no installed package with a plugin"
                    f"{did_you_mean(name, known)}; there are: {', '.join(sorted(known)) or 'none'}"
                )

    def _way_out(self, plugin: Any) -> str:
        """What can be done about a plugin with a mistake, to be said after it: something only if it is installed."""
        package = self._installed.get(id(plugin))
        return "" if package is None else _left_out(package)

    def _is_installed(self, name: str) -> bool:
        """Whether a file is that of an installed plugin: a config may name it for those who have not installed it."""
        if not (name.endswith(".py") and os.path.isfile(name)):
            return False
        text = sources(Path(name))
        return any(text == source(plugin) for plugin, origin in self._loaded if origin != "halos")

    def _add(self, plugin: Any, origin: str) -> None:
        if not self.manager.is_registered(plugin):
            try:
                self.manager.register(plugin)
            except pluggy.PluginValidationError as error:
                raise UserError(f"plugin {from_here(origin)}: {error}{self._way_out(plugin)}") from error
            self._origins[id(plugin)] = from_here(origin)
            self._loaded.append((plugin, origin))

    def _check_pending(self) -> None:
        """Refuse implementations of hooks that there are not: most likely a misspelt name."""
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            origin = self._origins.get(id(error.plugin), error.plugin)
            named = re.search(r"unknown hook '(\w+)'", str(error))
            if named is None:
                raise UserError(f"plugin {origin}: {error}{self._way_out(error.plugin)}") from error
            hooks = [name for name in vars(hookspecs) if name.startswith(("register_", "on_"))]
            raise UserError(
                f"plugin {origin}: there is no hook {named[1]!r}{did_you_mean(named[1], hooks)}; there are:"
                f" {', '.join(hooks)}{self._way_out(error.plugin)}"
            ) from error

    def _register(self, kind: str, implementation: Any) -> None:
        origin = self._origins[id(implementation.plugin)]

        def register(name: str, cls: type[Any]) -> None:
            problem = unfit(kind, name, cls)
            if problem:
                raise UserError(f"plugin {origin}: {kind} {name!r} {problem}{self._way_out(implementation.plugin)}")
            other = self.components[kind].get(name)
            if other is not None:
                raise UserError(
                    f"two plugins bring a {kind} named {name!r}: {other.origin} and {origin}; rename one,"
                    f" or load only one of them{self._way_out(implementation.plugin)}"
                )
            self.components[kind][name] = Component(kind, name, cls, origin)
            self._names.setdefault(cls, name)

        try:
            implementation.function(register)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"plugin {origin}: {KINDS[kind][1]} failed: {reason(error)}{self._way_out(implementation.plugin)}"
            ) from error


def canonical(package: str) -> str:
    """Return a package's name as pip compares it: `halos_codecs` is `halos-codecs`."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _left_out(package: str) -> str:
    return f"; to leave it out: --without-plugin {package}"


def versions(plugins: Plugins, watching: bool = True) -> dict[str, str]:
    """Return the versions of halos, Python, torch, and every plugin that is not part of halos, by name.

    Those that are only `watching` may be left out.
    """
    own = {"halos": VERSION, "python": platform.python_version(), "torch": str(torch.__version__)}
    return {**own, **plugins.versions(watching)}


def unfit(kind: str, name: Any, cls: Any) -> Optional[str]:
    """Return the problem that keeps `cls` from being a component of `kind` called `name`; None if there is none."""
    if not isinstance(name, str) or not name:
        return "has no name; a name is a text"
    if not (inspect.isclass(cls) and is_dataclass(cls)):
        return f"is {cls!r}; it must be a dataclass"
    protocol = KINDS[kind][0]
    for need, wanted in vars(protocol).items():
        if inspect.isfunction(wanted) and not need.startswith("_"):
            method = getattr(cls, need, None)
            if not callable(method):
                return f"has no method {need}() (see halos.{protocol.__name__})"
            plain = inspect.isfunction(method) and not hasattr(method, "__wrapped__")
            if inspect.iscoroutinefunction(wanted) and plain and not inspect.iscoroutinefunction(method):
                return f"has a method {need}() that is no coroutine; write: async def {need}(…), and await in it"
    fields = {field.name for field in dataclass_fields(cls)}
    for need in inspect.get_annotations(protocol):
        if need not in fields and not hasattr(cls, need):
            return f"has no field {need!r} (see halos.{protocol.__name__})"
    if "name" in fields:
        return "has a field 'name', the key that picks the component in a config; call it something else"
    return _unheard(kind, cls)


@functools.cache
def _events() -> dict[str, Mapping[str, inspect.Parameter]]:
    """Return the hooks that tell what happens, and what each takes."""
    return {name: inspect.signature(hook).parameters for name, hook in vars(hookspecs).items() if name[:3] == "on_"}


def _unheard(kind: str, cls: type[Any]) -> Optional[str]:
    """Return the problem with the event hooks of a component, which are methods marked `@hookimpl`."""
    hooks = _events()
    methods: dict[str, Any] = {name: getattr(cls, name, None) for name in dir(cls)}
    marked = {name: method for name, method in methods.items() if hasattr(method, "halos_impl")}
    for name, method in marked.items():
        if name not in hooks:
            near = did_you_mean(name, hooks)
            return f"has a method {name}(), and there is no such hook{near}; there are: {', '.join(hooks)}"
        takes = [each.name for each in inspect.signature(method).parameters.values() if each.default is each.empty]
        strange = [each for each in takes[1:] if each not in hooks[name]]
        if strange:
            return f"has a method {name}() that takes {', '.join(strange)}; there is: {', '.join(hooks[name])}"
    if kind == "observer":
        silent = [name for name in hooks if callable(methods.get(name)) and name not in marked]
        if silent:
            return f"has a method {silent[0]}() that is not marked @hookimpl, and would not be told"
        if not marked:
            return "is told of nothing: none of its methods is marked @hookimpl"
    return None
