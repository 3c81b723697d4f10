"""Load plugins by file or module name, and say what is wrong with one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from halos.errors import UserError, from_here

PACKAGE = "__init__.py"  # a plugin file of that name is a package: its modules import each other


def unique(names: Iterable[str]) -> list[str]:
    """Each plugin once, however its file is written."""
    return list({os.path.abspath(name) if name.endswith(".py") else name: name for name in names}.values())


def load_plugin(name: str) -> ModuleType:
    """A plugin by file (`my_idea.py`, `my_package/__init__.py`) or module name (`my_package.idea`)."""
    path = Path(name)
    name = from_here(name)
    if path.suffix == ".py" and not os.path.isfile(path):
        raise UserError(f"plugin {name}: no such file")
    try:
        return _load_file(path) if path.suffix == ".py" else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            hint = "; if that is a plugin too, name its file before this one"
            raise UserError(f"plugin {name} cannot be loaded: {reason(error)}{hint}") from error
        if os.path.isdir(path):
            raise UserError(f"plugin {name} is a folder; give a file in it, of a package its {PACKAGE}") from error
        raise UserError(f"plugin {name}: no such module (and a file's name would end in .py)") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"plugin {name} cannot be loaded: {reason(error)}") from error


class Fresh(SourceFileLoader):
    """Compiles a file as it is now.

    Python would take what it compiled before if the file is as long and was written in the same second, as one is that
    a notebook or a script has just changed a number in; and the run's records would name the source that was not run.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Return it."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_file(path: Path) -> ModuleType:
    package = path.name == PACKAGE
    stem = path.resolve().parent.name if package else path.stem
    # Two files of one name, in different folders, are two modules.
    module_name = f"halos_plugin_{stem}_{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}"
    inside = [str(path.resolve().parent)] if package else None
    loader = Fresh(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None, "there is the one just given"
    module = importlib.util.module_from_spec(spec)
    _unload(module_name)  # or a package would find its modules as they were
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _unload(module_name)
        raise
    known = sys.modules.get(stem)
    again = known is not None and known.__name__ == module_name
    if again or (stem.isidentifier() and stem not in sys.modules and importlib.util.find_spec(stem) is None):
        sys.modules[stem] = module  # a plugin file named after it may import it, and as it is now
    return module


def _unload(module: str) -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{module}.")]:
        del sys.modules[name]


def reason(error: BaseException) -> str:
    """Return in words what went wrong while a plugin was loaded, and where in its source."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


def source(plugin: Any) -> bytes:
    """Return the text of a plugin's module, or of all in its package; empty if it is none, or has no file."""
    file = getattr(plugin, "__file__", None)
    return sources(Path(file)) if file else b""


def sources(file: Path) -> bytes:
    """Return the text of a plugin file; of a package's, those of all its modules, with their names."""
    if file.name != PACKAGE:
        return file.read_bytes()
    files = sorted(path for path in file.parent.rglob("*.py") if path.is_file())  # and no editor's links to nowhere
    return b"".join([f"{path.relative_to(file.parent).as_posix()}\n".encode() + path.read_bytes() for path in files])
