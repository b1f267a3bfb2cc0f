"""Imports in a waiting worker what earlier runs of its environment imported.

It is part of the worker: only the standard library, Python 3.8. The app must not notice any difference from a cold
start. So this module tracks everything about the job that an import could have seen. If the job would have shown it
something else (a variable, a file of the app, a package installed meanwhile), the process starts cold with the job.
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
import warnings
import zipimport
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

MOST_MODULES = 5000
RUNTIME_FILE = ".fal-runtime.zip"
"""The archive's name in the app's directory, where an app's loader looks for it."""
RUNTIME_SUFFIX = ".runtime.zip"
"""The suffix of the engine's archive, after the name of the list of imports."""
RUNTIME_NAME = "runtime.zip"
"""The archive's name in a bundle."""
RUNTIME = "the runtime"
# The interpreter, the loader and C libraries read these without os.environ.
_UNSEEN = re.compile(
    r"PYTHON.*|LD_.*|LC_.*|LANG(UAGE)?|TZ|MALLOC_.*|GLIBC_.*|\w+_NUM_THREADS|(OMP|MKL|KMP|NPY|GRPC|CUDA|NVIDIA|NCCL|"
    r"TORCH|PYTORCH|TF|XLA|JAX|UV|OPENSSL|SSL)_.*"
)
# Device files of the machine, which a waiting process must not hold open.
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
_VIEW = {"FAL_DATA_DIR": "/data", "FAL_APP_DIR": "/app"}  # see mounts


class ImportList:
    """A file with the modules that an environment's runs imported, in order.

    Workers read it, and report new modules to their shims: the app could forge a file that workers could write.

    Args:
        python: the environment's interpreter, for the list's writer.

    Attributes:
        names: the modules.
        until: the first module that must wait for the job, along with all later ones, which may need it; "" if none
            must.
    """

    def __init__(self, path: str, python: str = "") -> None:
        self._path = path
        self._python = python
        self.names: List[str] = []
        self.until = ""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # missing, or not ours: nothing is known
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            self.names, self.until = [str(name) for name in found["names"]], str(found["until"])

    def add(self, names: Iterable[str]) -> None:
        """Add these modules."""
        known = set(self.names)
        new = [name for name in names if name not in known]
        if new and len(self.names) < MOST_MODULES:
            self.names = (self.names + new)[:MOST_MODULES]
            self._write()

    def early(self) -> List[str]:
        """Return the modules that can be imported without a job."""
        return self.names[: self.names.index(self.until)] if self.until in self.names else self.names

    def stop_before(self, name: str) -> None:
        """Import this module, and those that follow, only with a job."""
        if name in self.early():
            self.until = name
            self._write()

    def _write(self) -> None:
        draft = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):  # a full disk: the next runner starts without
            with open(draft, "w", encoding="utf-8") as file:
                json.dump({"python": self._python, "names": self.names, "until": self.until}, file)
            os.replace(draft, self._path)  # noqa: PTH105


def imported(directories: Iterable[str]) -> List[str]:
    """List the modules of its environment that this process has imported. The app's own are left out.

    Args:
        directories: those of sys.path without the app's.
    """
    return list(_imported(tuple(os.path.join(directory, "") for directory in directories if directory)))


def _imported(directories: Tuple[str, ...]) -> Iterator[str]:
    for name, module in list(sys.modules.items()):
        with contextlib.suppress(Exception):  # sys.modules may contain any object, which may raise anything
            spec = getattr(module, "__spec__", None)
            origin = getattr(spec, "origin", None)
            if isinstance(origin, str) and getattr(spec, "name", None) == name and origin.startswith(directories):
                yield name


class _Environ(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001 - subscripted, it would not be Python 3.8
    """os.environ during prewarming: records which variables are read, and by whose import."""

    reads: Dict[str, Tuple[str, Optional[str]]] = {}  # noqa: RUF012
    importing = ""
    all_read = False

    def __getitem__(self, key: Any) -> Any:
        value = self._data.get(self.encodekey(key)) if isinstance(key, str) else None  # type: ignore[attr-defined]
        self.reads.setdefault(key, (type(self).importing, None if value is None else os.fsdecode(value)))
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        # An import may read variables that it has set itself.
        self.reads.setdefault(key, ("", os.fsdecode(value)))
        super().__setitem__(key, value)

    def __iter__(self) -> Any:
        type(self).all_read = True
        return super().__iter__()


class Runtime:
    """The modules in the bundle of the last served app. The next app of the environment usually shares them.

    Args:
        kept: the archive that contains them; it may be missing.
        directory: the app's, where its loader looks for them; "" imports nothing.

    Attributes:
        alone: whether their import loaded no other modules.
    """

    def __init__(self, kept: str, directory: str) -> None:
        self._kept = kept
        self._path = os.path.join(directory, RUNTIME_FILE) if directory else ""
        self._content = b""
        self._names: Set[str] = set()
        self.alone = True

    def import_ahead(self) -> None:
        """Import the modules that the archive lists for prewarming."""
        if self._content or not self._path:
            return
        with contextlib.suppress(Exception):  # there is none, or it is damaged: the app brings its own
            with open(self._kept, "rb") as file:
                content = file.read()
            with open(self._path, "wb") as file:
                file.write(content)
            self._content = content
            before = set(sys.modules)
            sys.path.insert(0, self._path)
            try:
                for name in zipimport.zipimporter(self._path).get_data("ahead").decode().split():
                    # The environment may lack a dependency. A warning would come in no runner's log, or in a wrong one.
                    with contextlib.suppress(Exception), warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        importlib.import_module(name)
            finally:
                sys.path.remove(self._path)
                new = set(sys.modules) - before
                self._names = {name for name in new if _origin(name).startswith(self._path)}
                self.alone = new == self._names

    def keep_for(self, job: Dict[str, Any], environ: Dict[str, str]) -> None:
        """Keep the modules for a job with the same archive. Otherwise undo their import."""
        if not self._content:
            return
        seen = {name: value for name, (module, value) in _Environ.reads.items() if module == RUNTIME}
        same = not _Environ.all_read and all(environ.get(name) == value for name, value in seen.items())
        if same and _runtime_of(job) == self._content:
            return
        for name in self._names:
            del sys.modules[name]
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(environ.get("FAL_APP_DIR", ""), RUNTIME_FILE))  # noqa: PTH108
        for path in [path for path in sys.path_importer_cache if path.startswith(self._path)]:
            importer: Any = sys.path_importer_cache.pop(path)
            if hasattr(importer, "invalidate_caches"):
                importer.invalidate_caches()  # another archive may get the same path


class PrewarmedProcess:
    """This process before it has a job.

    Args:
        imports_file: lists the modules to import; see ImportList. The archive of Runtime is beside it.
        postpone: reports a module that must wait for the job to the shim.
    """

    def __init__(self, imports_file: str, postpone: Callable[[str], None]) -> None:
        self._file = imports_file
        self._runtime = Runtime(imports_file + RUNTIME_SUFFIX, os.environ.get("FAL_APP_DIR", ""))
        self._postpone = postpone
        self._before = dict(os.environ)
        self._stamps = {path: _stamp(path) for path in sys.path}

    def import_all(self) -> bool:
        """Import the listed modules. Return False if this process must not take a job any more."""
        listed = ImportList(self._file)
        kind = type(os.environ)
        os.environ.__class__ = _Environ
        try:
            for name in listed.early():
                if name in sys.modules:
                    continue
                _Environ.importing, _Environ.all_read = name, False
                with contextlib.suppress(Exception, SystemExit):  # the app gets the error if it needs the module
                    importlib.import_module(name)
                if _Environ.all_read or _has_children() or _has_devices():
                    self._postpone(name)
                    return False
            if not listed.until:  # it needs the environment's modules, some of which must wait
                _Environ.importing, _Environ.all_read = RUNTIME, False
                self._runtime.import_ahead()
        finally:
            os.environ.__class__ = kind
        return True

    def incompatibility(self, job: Dict[str, Any]) -> str:
        """Why this job needs a cold process, or "" if not."""
        environ = self._environ(job)
        for name, (module, value) in _Environ.reads.items():
            if module == RUNTIME and self._runtime.alone:
                continue
            if module and environ.get(name) != value:
                self._postpone(module)
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

    def adopt_job(self, job: Dict[str, Any]) -> None:
        """Set the job's environment variables, and keep changes made by imports."""
        environ = self._environ(job)
        self._runtime.keep_for(job, environ)
        made = {name: value for name, value in os.environ.items() if self._before.get(name) != value}
        gone = [name for name in self._before if name not in os.environ]
        os.environ.clear()
        os.environ.update({**environ, **made})
        for name in gone:
            os.environ.pop(name, None)

    def restart_cold(self, job: Dict[str, Any], results: int) -> None:
        """Start the job cold, in the same process."""
        environ = self._environ(job)
        given = os.memfd_create("job", 0)  # type: ignore[attr-defined, unused-ignore]  # no other program can open it
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
        """Return the job's variables, with this process's view of the file system."""
        environ: Dict[str, str] = dict(job["environ"])
        environ.update({name: path for name, path in _VIEW.items() if self._before.get(name) == path})
        return environ


def _entries_of(job: Dict[str, Any]) -> Iterator[str]:
    """Yield the names of the job's own files that imports would find."""
    for path in job["paths"]:
        yield from os.listdir(path)
    source = job.get("function", {})
    if source.get("method") == "fal_source":
        import zipfile  # rarely needed, slow to import

        with zipfile.ZipFile(source["path"]) as bundle:
            for name in bundle.namelist():
                if name.startswith("source/"):
                    yield name.split("/")[1]


def _runtime_of(job: Dict[str, Any]) -> bytes:
    """Return the archive of this project's modules in a job. It is empty if the job has none."""
    source = job.get("function", {})
    if source.get("method") != "fal_source":
        return b""
    import zipfile  # as above

    with zipfile.ZipFile(source["path"]) as bundle:
        return bundle.read(RUNTIME_NAME) if RUNTIME_NAME in bundle.namelist() else b""


def _origin(name: str) -> str:
    return str(getattr(getattr(sys.modules[name], "__spec__", None), "origin", None))


def _top(entry: str) -> str:
    return entry.partition(".")[0]


def _tops() -> Set[str]:
    return {_top(name) for name in sys.modules} - {"__main__"}


def _stamp(path: str) -> int:
    """Return a number that changes with a directory's installed packages. Bytecode does not change it."""
    found: Set[Tuple[str, int]] = set()
    with contextlib.suppress(OSError):  # a directory of sys.path may be missing
        for entry in os.scandir(path or "."):
            if entry.name != "__pycache__":
                installed = entry.name.endswith((".dist-info", ".egg-info", ".pth", ".egg-link"))
                found.add((entry.name, entry.stat().st_mtime_ns if installed else 0))
    return hash(frozenset(found))


def _has_children() -> bool:
    """Return whether an import has started a process."""
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                if file.read(1):
                    return True
        except OSError:  # the thread has ended, or the kernel has no such file
            continue
    return False


def _has_devices() -> bool:
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor through which the list was read
            if os.readlink("/proc/self/fd/" + descriptor).startswith(_DEVICES):  # noqa: PTH115
                return True
    return False
