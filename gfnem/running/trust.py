"""Whose code a run may have gfnem import: opening a stranger's run must not run a stranger's code.

A run names its parts by import path. While it is opened, a module that it names is imported only
if it is gfnem's own, has been imported already, is named by the user (`--code FILE`), or if the run
is the user's own: checkpoints carry a list of the files that a run's own classes came from, signed
with a key that only this user can read. Where no key can be kept there is no signature, and
`--code` is the way.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from gfnem.errors import UserError

_KEY_BYTES = 32


def class_paths(content: Any) -> list[str]:
    """Every `class_path` in nested plain data, in order, each once."""
    found: dict[str, None] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Mapping):
            if isinstance(value.get("class_path"), str):
                found[value["class_path"]] = None
            for entry in value.values():
                visit(entry)
        elif isinstance(value, (list, tuple)):
            for entry in value:
                visit(entry)

    visit(content)
    return list(found)


def sign(content: Any) -> dict[str, Any]:
    """What a checkpoint must hold for its own user to open it again without `--code`.

    Args:
        content: plain data with the specs of all that the run is made of.

    Returns:
        `{"classes": ..., "modules": {name: file}, "signature": ...}`; empty where every class is
        gfnem's own, or where no key can be kept.
    """
    classes = [path for path in class_paths(content) if not _is_ours(path)]
    modules = {}
    for path in classes:
        for name in _with_parents(path.rpartition(".")[0]):
            file = getattr(sys.modules.get(name), "__file__", None)
            if file is not None and name != "__main__":
                modules[name] = os.path.realpath(file)
    key = _key(make=True) if modules else None
    if key is None:
        return {}
    return {"classes": classes, "modules": modules, "signature": _mac(key, classes, modules)}


@contextmanager
def opening(
    content: Any, signed: Mapping[str, Any] | None = None, suspicious: bool = False
) -> Iterator[None]:
    """While a run is opened, lets it import no more than it may.

    The working folder is not searched meanwhile.

    Args:
        content: what the run says of itself, nested plain data.
        signed: what `sign` put into its checkpoint.
        suspicious: whether any string, and not only a `class_path`, may name a module.

    Raises:
        UserError: naming the module that the run wants, and the way out.
    """
    paths = _strings(content) if suspicious else class_paths(content)
    guard = _Guard(paths, _signed_files(signed, class_paths(content)))
    here = {"", os.getcwd()}
    hidden = [(index, place) for index, place in enumerate(sys.path) if place in here]
    for _, place in hidden:
        sys.path.remove(place)
    sys.meta_path.insert(0, guard)
    try:
        yield
    except Exception as error:
        # whoever asked for the module may have taken the refusal for something else
        if guard.refused is None or str(guard.refused) in str(error):
            raise
        raise guard.refused from error
    finally:
        sys.meta_path.remove(guard)
        for index, place in hidden:
            sys.path.insert(index, place)


def signature_of(run: str | os.PathLike) -> Mapping[str, Any] | None:
    """What `sign` put into a run's checkpoint; None where there is no checkpoint yet."""
    from gfnem.running.runs import CHECKPOINT, read_checkpoint

    path = Path(run) / CHECKPOINT if os.path.isdir(run) else Path(run)
    return read_checkpoint(path).get("trust") if path.exists() else None


def use_code(files: Sequence[str]) -> None:
    """Imports what the user names with `--code`: Python files, each under its stem, or modules.

    A module that has been imported before stays as it is.

    Raises:
        UserError: if there is no such file or module, or importing it fails.
    """
    for name in files:
        path = Path(name)
        if not path.is_file() and (path.suffix == ".py" or not _is_module_name(name)):
            raise UserError(f"--code {name}: no such file")
        try:
            if not path.is_file():
                importlib.import_module(name)
            elif path.stem not in sys.modules:
                _import_file(path.stem, path)
        except UserError:
            raise
        except Exception as error:  # it is any code
            raise UserError(f"--code {name}: {type(error).__name__}: {error}") from error


class _Guard(MetaPathFinder):
    """Is asked before all others where a module is: refuses, or says where the signed file is."""

    def __init__(self, paths: Sequence[str], files: Mapping[str, str]):
        self.files = files
        self.wanted = {
            name: path
            for path in reversed(paths)
            if not _is_ours(path)
            for name in _with_parents(path.rpartition(".")[0])
        }
        self.refused: UserError | None = None

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname not in self.wanted:
            return None
        file = self.files.get(fullname)
        if file is not None and os.path.isfile(file):
            return _spec(fullname, Path(file))
        path = self.wanted[fullname]
        if file is None:
            why = "a run imports no code that you have not named, and this is not a run of yours"
        else:
            why = f"its file {file} is gone"
        module = path.rpartition(".")[0]
        way = f"{module}.py" if "." not in module else module
        self.refused = UserError(
            f"cannot import {path}: {why}; if you trust that code, name it with --code {way} (the "
            "file's place; PYTHONPATH is not enough), or import it first in Python"
        )
        raise self.refused


def _is_ours(path: str) -> bool:
    return path.partition(".")[0] == "gfnem"


def _with_parents(module: str) -> list[str]:
    """`["a", "a.b"]` for "a.b"."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts)) if module]


def _is_module_name(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _strings(content: Any) -> list[str]:
    """Every string in nested plain data that could be an import path."""
    if isinstance(content, str):
        return [content] if "." in content and _is_module_name(content) else []
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        return [string for entry in content for string in _strings(entry)]
    return []


def _spec(name: str, file: Path) -> ModuleSpec | None:
    package = [str(file.parent)] if file.name == "__init__.py" else None
    if package is None and str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # what lies beside it is found, but after all else
    return importlib.util.spec_from_file_location(name, file, submodule_search_locations=package)


def _import_file(name: str, file: Path) -> None:
    spec = _spec(name, file.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"--code {file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _signed_files(signed: Any, named: Sequence[str]) -> dict[str, str]:
    """The files of a signature that holds, without those of which other classes are wanted."""
    try:
        classes, modules = list(signed["classes"]), dict(signed["modules"])
        key = _key(make=False)
        if key is None or not hmac.compare_digest(_mac(key, classes, modules), signed["signature"]):
            return {}
    except (TypeError, KeyError, ValueError):  # none there, or not one of ours
        return {}
    others = {path.rpartition(".")[0] for path in named if path not in classes}
    return {name: file for name, file in modules.items() if name not in others}


def _mac(key: bytes, classes: list[str], modules: dict[str, str]) -> str:
    message = json.dumps(["gfnem run", classes, modules], sort_keys=True)
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


# -------------------------------------------------------------------------- the user's key


def _key(make: bool) -> bytes | None:
    """The user's secret; None where there is none, or where others could have read it."""
    try:
        home = Path(os.environ.get("XDG_STATE_HOME", ""))
        if not home.is_absolute():  # as the XDG specification has it
            home = Path.home() / ".local" / "state"
        path = home / "gfnem" / "key"
        if make and not path.exists():
            _make_key(path)
        return _read_key(path)
    except (OSError, RuntimeError):  # no home, or none to write into
        return None


def _read_key(path: Path) -> bytes | None:
    with open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        key = stream.read(_KEY_BYTES + 1)
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
        return None
    return key if len(key) == _KEY_BYTES else None


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".key.{secrets.token_hex(6)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)  # whole or not at all, and never over another's
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
