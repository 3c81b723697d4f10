"""Find plugins (installed packages, modules, single files) and register what they bring by kind and name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import pluggy

from halos import hookspecs
from halos.codecs import Codec
from halos.compute import ComputeModel
from halos.data import DataSource
from halos.errors import UserError, did_you_mean
from halos.executors import Executor
from halos.merge import MergeRule
from halos.models import Model
from halos.network import NetworkModel
from halos.simulation import SyncPolicy
from halos.steps import StepAllocation
from halos.weights import ContributionWeights

ENTRY_POINTS = "halos"

# kind → (the Protocol a config field is annotated with, the hook that registers its components)
KINDS: dict[str, tuple[type[Any], str]] = {
    "policy": (SyncPolicy, "register_sync_policies"),
    "merge rule": (MergeRule, "register_merge_rules"),
    "network model": (NetworkModel, "register_network_models"),
    "step allocation": (StepAllocation, "register_step_allocations"),
    "contribution weights": (ContributionWeights, "register_contribution_weights"),
    "compute model": (ComputeModel, "register_compute_models"),
    "codec": (Codec, "register_codecs"),
    "model": (Model, "register_models"),
    "data source": (DataSource, "register_data_sources"),
    "executor": (Executor, "register_executors"),
}
MODULES = ("merge", "network", "steps", "weights", "compute", "codecs")
FOLDERS = ("policies", "models", "data", "executors")  # every module in them registers itself


def built_in() -> list[str]:
    """The modules of halos that register components, as any plugin does."""
    here = Path(__file__).parent
    inside = [f"{folder}.{file.stem}" for folder in FOLDERS for file in sorted((here / folder).glob("[!_]*.py"))]
    return [f"halos.{module}" for module in (*MODULES, *inside)]


@dataclass(frozen=True)
class Component:
    """A registered class, and where it comes from (for `--list-plugins` and error messages)."""

    kind: str
    name: str
    cls: type[Any]
    origin: str

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.cls) or "").strip().split("\n")[0]


class Plugins:
    """The plugins of one run: a fresh pluggy manager, and the components by kind and name."""

    def __init__(self, extra: list[str] | tuple[str, ...] = ()) -> None:
        self.manager = pluggy.PluginManager("halos")
        self.manager.add_hookspecs(hookspecs)
        self._origins: dict[int, str] = {}
        self._loaded: list[tuple[Any, str]] = []
        self._names: dict[type[Any], str] = {}
        for name in built_in():
            self._add(importlib.import_module(name), "halos")
        self._add_installed()
        for name in extra:
            self._add(load(name), name)
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise UserError(f"plugin {self._origins.get(id(error.plugin), error.plugin)}: {error}") from error
        self.components: dict[str, dict[str, Component]] = {kind: {} for kind in KINDS}
        for kind, (_, hook) in KINDS.items():
            for implementation in getattr(self.manager.hook, hook).get_hookimpls():
                self._register(kind, implementation)

    def find(self, kind: str, name: str) -> type[Any]:
        """The class registered as `name`; a UserError that lists what there is."""
        known = self.components[kind]
        if name not in known:
            raise UserError(
                f"{name!r} is not installed; installed: {', '.join(sorted(known))}{did_you_mean(name, known)}"
            )
        return known[name].cls

    def name_of(self, cls: type[Any]) -> Optional[str]:
        """The name a component class is registered under, if it is one."""
        return self._names.get(cls)

    def versions(self) -> dict[str, str]:
        """`{plugin: version or source hash}` of everything that is not part of halos itself."""
        versions = {}
        for plugin, origin in self._loaded:
            if origin != "halos":
                source = getattr(plugin, "__file__", None)
                digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else "unknown"
                versions[origin] = f"sha256:{digest}"
        return versions

    def _add_installed(self) -> None:
        for distribution in importlib.metadata.distributions():
            for entry in distribution.entry_points:
                if entry.group == ENTRY_POINTS:
                    origin = f"{distribution.metadata['Name']} {distribution.version}"
                    try:
                        plugin = entry.load()
                    except Exception as error:
                        raise UserError(f"plugin {origin} cannot be loaded: {error}") from error
                    self._add(plugin, origin)

    def _add(self, plugin: Any, origin: str) -> None:
        if not self.manager.is_registered(plugin):
            try:
                self.manager.register(plugin)
            except pluggy.PluginValidationError as error:
                raise UserError(f"plugin {origin}: {error}") from error
            self._origins[id(plugin)] = origin
            self._loaded.append((plugin, origin))

    def _register(self, kind: str, implementation: Any) -> None:
        origin = self._origins[id(implementation.plugin)]

        def register(name: str, cls: type[Any]) -> None:
            if not (inspect.isclass(cls) and is_dataclass(cls)):
                raise UserError(f"plugin {origin}: {kind} {name!r} is {cls!r}; it must be a dataclass")
            other = self.components[kind].get(name)
            if other is not None:
                raise UserError(
                    f"two plugins bring a {kind} named {name!r}: {other.origin} and {origin}; uninstall one"
                )
            missing = [need for need in needs(KINDS[kind][0]) if not hasattr(cls, need)]
            if missing:
                raise UserError(f"plugin {origin}: {kind} {name!r} has no {', '.join(missing)}()")
            self.components[kind][name] = Component(kind, name, cls, origin)
            self._names[cls] = name

        implementation.function(register)


def needs(protocol: type[Any]) -> list[str]:
    """The names of the methods a Protocol asks for."""
    return [name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")]


def load(name: str) -> ModuleType:
    """A plugin by file (`my_idea.py`) or module name (`my_package.idea`)."""
    path = Path(name)
    try:
        if path.suffix != ".py":
            return importlib.import_module(name)
        if not path.is_file():
            raise UserError(f"plugin {name}: no such file")
        module_name = "halos_plugin_" + path.stem
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"plugin {name} cannot be loaded: {type(error).__name__}: {error}") from error
