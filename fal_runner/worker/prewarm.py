"""Inside a worker that was started ahead: what the environment's last runs imported is there before there is a job.

Part of the worker, so the standard library alone and Python 3.8. A plain start must not be told from this one. So what
an import could see of a job that is not there yet is watched; where the job's own would have been another (a variable,
a file of the app, a package installed meanwhile), the process begins anew with the job in its hand, as a plain start.
"""

# ruff: noqa: ANN401, UP006, UP035, UP045, PTH118, PTH123, PTH208

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import sys
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

MOST_MODULES = 5000
# What the interpreter, the loader and C libraries read without asking os.environ.
_UNSEEN = re.compile(
    r"PYTHON.*|LD_.*|LC_.*|LANG(UAGE)?|TZ|MALLOC_.*|GLIBC_.*|\w+_NUM_THREADS|(OMP|MKL|KMP|NPY|GRPC|CUDA|NVIDIA|NCCL|"
    r"TORCH|PYTORCH|TF|XLA|JAX|UV|OPENSSL|SSL)_.*"
)
# Whose files a device of the machine is used through; a process that waits must hold none.
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
_VIEW = {"FAL_DATA_DIR": "/data", "FAL_APP_DIR": "/app"}  # see mounts


class Imports:
    """A file with the modules that runs of an environment imported, in that order.

    Attributes:
        names: the modules.
        until: the one that must wait for the job, and with it all that follow, which may need it; "" where none must.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.names: List[str] = []
        self.until = ""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # not there yet, or not ours: nothing known
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            self.names, self.until = [str(name) for name in kept["names"]], str(kept["until"])

    def add(self, names: Iterable[str]) -> None:
        """Remember these too."""
        known = set(self.names)
        fresh = [name for name in names if name not in known]
        if fresh and len(self.names) < MOST_MODULES:
            self.names = (self.names + fresh)[:MOST_MODULES]
            self._write()

    def early(self) -> List[str]:
        """What may be imported without a job."""
        return self.names[: self.names.index(self.until)] if self.until in self.names else self.names

    def stop_before(self, name: str) -> None:
        """Import this, and what follows, only when there is a job."""
        if name in self.early():
            self.until = name
            self._write()

    def _write(self) -> None:
        draft = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):  # a full disk: the next runner starts without
            with open(draft, "w", encoding="utf-8") as file:
                json.dump({"python": sys.executable, "names": self.names, "until": self.until}, file)
            os.replace(draft, self._path)  # noqa: PTH105


def remember(path: str, places: Iterable[str]) -> None:
    """Note what this process has imported of its environment: never the app's own.

    Args:
        path: the file; "" notes nothing.
        places: the directories that were on sys.path before the app's were.
    """
    if path:
        Imports(path).add(_imported(tuple(os.path.join(place, "") for place in places if place)))


def _imported(places: Tuple[str, ...]) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        with contextlib.suppress(Exception):  # what stands there may be anything, and answer with anything
            spec = getattr(module, "__spec__", None)
            origin = getattr(spec, "origin", None)
            if isinstance(origin, str) and getattr(spec, "name", None) == name and origin.startswith(places):
                yield name


class _Environ(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001 - subscripted, it would not be Python 3.8
    """os.environ while modules are imported ahead: notes what is read, and by whose import."""

    reads: Dict[str, Tuple[str, Optional[str]]] = {}  # noqa: RUF012
    importing = ""
    all_read = False

    def __getitem__(self, key: Any) -> Any:
        """As ever."""
        value = self._data.get(self.encodekey(key)) if isinstance(key, str) else None  # type: ignore[attr-defined]
        self.reads.setdefault(key, (type(self).importing, None if value is None else os.fsdecode(value)))
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """As ever. What an import itself has set, it may read."""
        self.reads.setdefault(key, ("", os.fsdecode(value)))
        super().__setitem__(key, value)

    def __iter__(self) -> Any:
        """As ever."""
        type(self).all_read = True
        return super().__iter__()


class PrewarmedProcess:
    """A process without a job.

    Args:
        imports_file: what to import; see Imports.
    """

    def __init__(self, imports_file: str) -> None:
        self._file = imports_file
        self._before = dict(os.environ)
        self._stamps = {path: _stamp(path) for path in sys.path}

    def import_all(self) -> bool:
        """Import what is listed and not there yet; False where this process must not be used for a job any more."""
        listed = Imports(self._file)
        kind = type(os.environ)
        os.environ.__class__ = _Environ
        try:
            for name in listed.early():
                if name in sys.modules:
                    continue
                _Environ.importing, _Environ.all_read = name, False
                with contextlib.suppress(Exception, SystemExit):  # who needs it sees the error
                    importlib.import_module(name)
                if _Environ.all_read or _has_children() or _has_devices():
                    listed.stop_before(name)
                    return False
        finally:
            os.environ.__class__ = kind
        return True

    def incompatibility(self, job: Dict[str, Any]) -> str:
        """Why this job must have a process that has imported nothing; "" where it need not."""
        environ = self._environ(job)
        for name, (module, value) in _Environ.reads.items():
            if module and environ.get(name) != value:
                Imports(self._file).stop_before(module)
                return f"{module} looks at {name} when it is imported"
        for name in {*environ, *self._before}:
            if _UNSEEN.fullmatch(name) and environ.get(name) != self._before.get(name):
                return f"{name} is the app's own"
        clash = {_top(entry) for entry in _entries_of(job)} & _tops()
        if clash:
            return f"the app has a {min(clash)} of its own"
        if any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
            return "the environment was changed"
        return ""

    def take(self, job: Dict[str, Any]) -> None:
        """Have the job's environment variables from now on, and what imports made of the former ones."""
        environ = self._environ(job)
        made = {name: value for name, value in os.environ.items() if self._before.get(name) != value}
        gone = [name for name in self._before if name not in os.environ]
        os.environ.clear()
        os.environ.update({**environ, **made})
        for name in gone:
            os.environ.pop(name, None)

    def restart_cold(self, job: Dict[str, Any], results: int) -> None:
        """Become a plain start of the job; the process stays the same."""
        environ = self._environ(job)
        given = os.memfd_create("job", 0)  # type: ignore[attr-defined, unused-ignore]  # not for another program to open
        text = json.dumps({name: value for name, value in job.items() if name != "environ"}).encode() + b"\n"
        while text:
            text = text[os.write(given, text) :]
        os.lseek(given, 0, os.SEEK_SET)
        os.set_inheritable(results, True)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        program = sys.modules["__main__"].__file__
        assert program is not None
        os.execve(sys.executable, [sys.executable, program, str(given), str(results)], environ)  # noqa: S606

    def _environ(self, job: Dict[str, Any]) -> Dict[str, str]:
        """The job's variables; the view of the file system is the one that this process has."""
        environ: Dict[str, str] = dict(job["environ"])
        environ.update({name: place for name, place in _VIEW.items() if self._before.get(name) == place})
        return environ


def _entries_of(job: Dict[str, Any]) -> Iterator[str]:
    """Yield the names of the job's own files that imports would find."""
    for path in job["paths"]:
        yield from os.listdir(path)
    source = job.get("function", {})
    if source.get("method") == "fal_source":
        import zipfile  # seldom needed, and slow to import

        with zipfile.ZipFile(source["path"]) as bundle:
            for name in bundle.namelist():
                if name.startswith("source/"):
                    yield name.split("/")[1]


def _top(entry: str) -> str:
    return entry.partition(".")[0]


def _tops() -> Set[str]:
    return {_top(name) for name in sys.modules} - {"__main__"}


def _stamp(path: str) -> int:
    """What changes when something is installed into a directory, or removed; not when bytecode is kept in it."""
    found: Set[Tuple[str, int]] = set()
    with contextlib.suppress(OSError):  # a path need not be there
        for entry in os.scandir(path or "."):
            if entry.name != "__pycache__":
                installed = entry.name.endswith((".dist-info", ".egg-info", ".pth", ".egg-link"))
                found.add((entry.name, entry.stat().st_mtime_ns if installed else 0))
    return hash(frozenset(found))


def _has_children() -> bool:
    """Whether an import has started a process."""
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                if file.read(1):
                    return True
        except OSError:  # the thread has ended, or the kernel does not tell
            continue
    return False


def _has_devices() -> bool:
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that the list was read through
            if os.readlink("/proc/self/fd/" + descriptor).startswith(_DEVICES):  # noqa: PTH115
                return True
    return False
