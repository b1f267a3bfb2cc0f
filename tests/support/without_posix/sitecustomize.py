"""Hides POSIX-only features from the client's code, as on Windows.

Python imports it at its start if this folder is on PYTHONPATH. Other code, such as gRPC and the tests, is not affected,
because it supports other systems by itself.
"""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType

_CLIENT = ("fal", "fal_grpc", "fal_cli")
_MODULES = frozenset({"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"})
_NAMES = {
    "os": {
        *("fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getpgid", "getsid", "killpg", "setsid"),
        *("chown", "fchmod", "fchown", "mkfifo", "openpty", "pidfd_open", "posix_spawn", "sysconf", "uname", "wait4"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "WNOHANG"),
    },
    "select": {"poll", "epoll", "POLLIN"},
    "selectors": {"PollSelector", "EpollSelector"},
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2"),
        *("SIGWINCH", "pause", "pidfd_send_signal", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"),
    },
    "socket": {"AF_UNIX", "socketpair"},
}
_VALUES: dict[str, dict[str, object]] = {"sys": {"platform": "win32"}}


class _Shortened(ModuleType):
    """A module with some names removed or replaced."""

    _whole: ModuleType
    _hidden: set[str]

    def __init__(self, module: ModuleType, hidden: set[str], values: dict[str, object]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(values, _whole=module, _hidden=hidden)

    def __getattr__(self, name: str) -> object:
        if name in self._hidden:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} here")
        return getattr(self._whole, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._whole, name, value)


_import = builtins.__import__
_shortened: dict[str, ModuleType] = {}


def _import_for_the_client(
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002
    locals: Mapping[str, object] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    importer = str((globals or {}).get("__name__", "")).partition(".")[0]
    if importer in _CLIENT and not level:
        top = name.partition(".")[0]
        if top in _MODULES:
            raise ModuleNotFoundError(f"No module named {name!r} here", name=name)
        changed = _NAMES.keys() | _VALUES.keys()
        if name in changed or (top in changed and not fromlist):
            if top not in _shortened:
                module = importlib.import_module(top)
                _shortened[top] = _Shortened(module, _NAMES.get(top, set()), _VALUES.get(top, {}))
            return _shortened[top]
    return _import(name, globals, locals, fromlist or (), level)


builtins.__import__ = _import_for_the_client
