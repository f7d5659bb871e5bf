"""Imports a user's file or module, and says where in it something went wrong.

Importing executes the user's code. It runs under a private module name, with its folder first on
`sys.path`, and leaves the random number generators and `sys.path` as they were.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import linecache
import logging
import random
import sys
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

import torch

from mufx.diagnostics import Diagnostic, MufxError, Place, error

_MUFX = Path(__file__).resolve().parent


def import_file(path: Path) -> ModuleType:
    """The module that a Python file defines.

    The module's name is private and depends on the file's path and text: the same file is the
    same module, and an edited one is another. It stays in `sys.modules`, so that its classes can
    be pickled and `inspect.getsource` finds them.

    Raises:
        MufxError: `MUF001` where there is no such file, `MUF002` where it raises.
    """
    path = path.resolve()
    if not path.is_file():
        raise MufxError(
            error(
                "MUF001",
                f"there is no file {path}",
                hint="name a Python file: model.py, model.py:Class or package.module:Class",
            )
        )
    identity = str(path).encode() + path.read_bytes()
    name = f"_mufx_{path.stem}_{hashlib.sha256(identity).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MufxError(
            error("MUF001", f"{path} is no Python file", hint="its name has to end in .py")
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    linecache.checkcache(str(path))
    try:
        with preserved_rng(), imports_from(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise MufxError(_import_failed(str(path), problem, path.parent)) from problem
    return module


def import_module(name: str) -> ModuleType:
    """The module of a dotted name, from the working directory or from the environment.

    Raises:
        MufxError: `MUF001` where there is no such module, `MUF002` where it raises.
    """
    folder = Path.cwd()
    try:
        with preserved_rng(), imports_from(folder):
            return importlib.import_module(name)
    except (Exception, SystemExit) as problem:
        if isinstance(problem, ModuleNotFoundError) and _is_part_of(problem.name, name):
            raise MufxError(
                error(
                    "MUF001",
                    f"there is no module {problem.name}",
                    hint="install it in this environment, or run mufx in the folder that holds it",
                )
            ) from problem
        raise MufxError(_import_failed(name, problem, folder)) from problem


def folder_of(module: ModuleType) -> Path:
    """The folder that `module` imports its neighbours from."""
    file = getattr(module, "__file__", None)
    if file is None:
        return Path.cwd()
    return Path(file).resolve().parents[module.__name__.count(".")]


@contextmanager
def imports_from(folder: Path) -> Generator[None]:
    """Puts `folder` first on `sys.path`, as running a script there would.

    A neighbour whose name is already taken by another folder's module is imported afresh, and the
    name goes back to its owner at the end. No byte code is written beside the user's files.
    An installed package finds its own imports, so nothing is changed for one.
    """
    if _is_installed(folder):
        yield
        return
    aside = {name: sys.modules.pop(name) for name in _taken(folder)}
    path = list(sys.path)
    write_nothing = sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = write_nothing
        sys.path[:] = path
        for name in [n for n in sys.modules if _top(n) in {_top(a) for a in aside}]:
            del sys.modules[name]
        sys.modules.update(aside)


@contextmanager
def preserved_rng() -> Generator[None]:
    """Gives the global random number generators back as they were."""
    torch_state, python = torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python)
        if numpy is not None and numpy_state is not None:
            numpy.random.set_state(numpy_state)


@contextmanager
def quiet() -> Generator[None]:
    """Holds back what a build prints, warns and logs that only serves to look at the model."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def place_in_user_code(problem: BaseException, folder: Path) -> Place | None:
    """The innermost line under `folder` that an exception passed through."""
    if isinstance(problem, SyntaxError) and problem.filename is not None:
        return Place(problem.filename, problem.lineno or 1)
    frames = traceback.extract_tb(problem.__traceback__)
    own = [f for f in frames if _is_user_file(f.filename, folder)]
    foreign = [f for f in frames if not _is_machinery(f.filename)]
    chosen = own or foreign
    if not chosen:
        return None
    return Place(chosen[-1].filename, chosen[-1].lineno or 1)


def described(problem: BaseException) -> str:
    """One line: the exception's type and message, or the line that raised it."""
    if isinstance(problem, SyntaxError):
        return f"{type(problem).__name__}: {problem.msg}"
    name, message = type(problem).__name__, " ".join(str(problem).split())
    if message:
        return f"{name}: {message}"
    frames = traceback.extract_tb(problem.__traceback__)
    return f"{name} at `{frames[-1].line}`" if frames else name


def _import_failed(what: str, problem: BaseException, folder: Path) -> Diagnostic:
    missing = problem.name if isinstance(problem, ModuleNotFoundError) else None
    return error(
        "MUF002",
        f"importing {Path(what).name} raised {described(problem)}",
        hint=f"install {missing} in this environment"
        if missing
        else "mufx imports the file to find the model: it has to import without arguments; "
        'training code belongs under `if __name__ == "__main__":`',
        place=place_in_user_code(problem, folder),
    )


def _taken(folder: Path) -> list[str]:
    """Loaded modules that stand where a neighbour in `folder` would be imported."""
    neighbours = {p.stem for p in folder.glob("*.py")} | {
        p.parent.name for p in folder.glob("*/__init__.py")
    }
    names = neighbours & set(sys.modules) - sys.stdlib_module_names
    foreign = {n for n in names if _is_private_to_another_folder(sys.modules[n], folder)}
    return [name for name in sys.modules if _top(name) in foreign]


def _is_private_to_another_folder(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    if _is_installed(path) or path.is_relative_to(_MUFX):
        return False
    return not path.is_relative_to(folder)


def _is_installed(path: Path) -> bool:
    return "site-packages" in path.parts or "dist-packages" in path.parts


def _is_user_file(filename: str, folder: Path) -> bool:
    path = Path(filename)
    if not path.is_relative_to(folder) or path.is_relative_to(_MUFX):
        return False
    return not _is_installed(path.relative_to(folder))


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<") or Path(filename).is_relative_to(_MUFX)


def _is_part_of(missing: str | None, name: str) -> bool:
    return missing is not None and (name == missing or name.startswith(missing + "."))


def _top(name: str) -> str:
    return name.partition(".")[0]
