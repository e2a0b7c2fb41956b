"""Factories given as the objects they are: under which name another process finds them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_WHAT = "the function or class that makes it, and its arguments apart (env_args, policy_args)"
_MOVE = "move it to a module of its own (parts.py, say) and give the function, or its name as parts:function"


def import_path(factory: Any) -> Any:
    """`module:name` of a function or class; anything that is no callable is returned as it is.

    ValueError, saying what to do, for one that another process cannot import: a lambda, something made within a
    function, or something of a program that would run again if it were imported.
    """
    if not callable(factory):
        if factory is not None and not isinstance(factory, (str, bytes, int, float, list, dict)):
            raise ValueError(
                f"a {type(factory).__name__} is made already; another process has to make it: give {_WHAT}"
            )
        return factory
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if not module or not name:
        raise ValueError(f"a {type(factory).__name__} has no name of its own; give {_WHAT}")
    if "<lambda>" in name or "<locals>" in name:
        raise ValueError(f"{module}.{name} is made while the program runs, other processes cannot import it; {_MOVE}")
    if module == "__main__":
        module = _module_of_main(name)
    elif "." in name or getattr(importlib.import_module(module), name, None) is not factory:
        raise ValueError(f"{module}.{name} is not what `from {module} import {name}` gives; {_MOVE}")
    return f"{module}:{name}"


def import_factory_module(name: str) -> ModuleType:
    """The module that a "module:factory" names, by its import name or as a file ("agents/net.py").

    The folder of a file is added to the path, after everything else: what lies beside it can be imported by it.
    """
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    if not path.is_file():
        raise ModuleNotFoundError(f"there is no file {path}", name=name)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    known = sys.modules.get(path.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path:
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    if known is None:
        sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def is_missing(module: str, error: BaseException) -> bool:
    """Whether that module itself, or a package it is in, is what could not be imported: not something it needs."""
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def _module_of_main(name: str) -> str:
    """The name under which the running program can be imported without running it again."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if file is None:
        raise ValueError(f"{name} is part of a notebook or a prompt, which other processes cannot import; {_MOVE}")
    if not _is_guarded(Path(file)):
        raise ValueError(
            f"{name} is part of the program that runs ({file}), and importing that would run it again in each process: "
            f'put what the program does under `if __name__ == "__main__":`, or {_MOVE}'
        )
    module = str(spec.name) if spec is not None else Path(file).stem
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or Path(found.origin).resolve() != Path(file).resolve():
        raise ValueError(f"{name} is part of {file}, and `import {module}` does not find that; {_MOVE}")
    return module


def _is_guarded(file: Path) -> bool:
    """Whether a program does what it does only if it is not imported."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return False
    tests = [statement.test for statement in body if isinstance(statement, ast.If)]
    return any(isinstance(test, ast.Compare) and "__name__" in ast.dump(test) for test in tests)
