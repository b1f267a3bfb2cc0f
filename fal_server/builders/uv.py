"""Runs uv, and finds the interpreters of this machine."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from fal_server.builders.process import run_lines
from fal_server.core.identity import LOCAL, AccountId

# An installer may know how to reach the network and where packages are, see docs/explanation/security.md. Builds run
# foreign code, which gets these variables, and those of the operator hold secrets.
_PASSED = re.compile(
    r"PATH|USER|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|NETRC|CC|CXX|CFLAGS|CXXFLAGS|LDFLAGS|CUDA_HOME|"
    r"(?:HTTP|HTTPS|ALL|NO)_PROXY|(?:http|https|all|no)_proxy|"
    r"SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_SSL_CAINFO|"
    r"UV_(?:CACHE_DIR|CONCURRENT_\w+|CONFIG_FILE|CONSTRAINT|DEFAULT_INDEX|EXCLUDE_NEWER|EXTRA_INDEX_URL|FIND_LINKS|"
    r"HTTP_\w+|INDEX|INDEX_(?:URL|STRATEGY|\w+_USERNAME|\w+_PASSWORD)|INSECURE_HOST|KEYRING_PROVIDER|LINK_MODE|"
    r"NATIVE_TLS|NO_BINARY\w*|NO_BUILD\w*|NO_INDEX|OFFLINE|OVERRIDE|PRERELEASE|PYTHON_INSTALL_DIR|PYTHON_PREFERENCE|"
    r"REQUEST_TIMEOUT|SYSTEM_CERTS|TORCH_BACKEND)"
)


class Uv:
    """The uv program.

    Args:
        cache_dir: where packages are cached, unless UV_CACHE_DIR says otherwise.
        environ: the controller's environment variables, of which uv gets those that it needs.
    """

    def __init__(self, cache_dir: Path, environ: Mapping[str, str]) -> None:
        passed = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
        self._home = cache_dir.with_name("home")
        self._variables = {
            "UV_CACHE_DIR": str(cache_dir),
            **_of_operators_home(environ),
            **passed,
            "HOME": str(self._home),  # in the operator's are passwords and keys
            "PATH": _search_path(environ),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        self._interpreters: dict[str, Path] = {}

    async def run(
        self,
        *arguments: str,
        cwd: Path,
        stdin: str = "",
        line: Callable[[str], None],
        keep_open: Sequence[int] = (),
        warnings: bool = True,
        account: AccountId = LOCAL,
    ) -> int:
        """Run uv to its end, as `run_lines` does; return its exit code.

        Args:
            account: who builds; each has a cache of its own, since a cache holds what passwords opened.
        """
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await run_lines(
            (find_uv_bin(), *arguments),
            cwd=cwd,
            variables={**self._variables, "UV_CACHE_DIR": str(self.cache_of(account))},
            line=line,
            stdin=stdin,
            keep_open=keep_open,
            warnings=warnings,
        )

    def cache_of(self, account: AccountId) -> Path:
        """Return where the packages of an account are cached."""
        cache = Path(self._variables["UV_CACHE_DIR"])
        return cache if account == LOCAL else cache.with_name(f"{cache.name}-{account}")

    async def find_python(self, version: str, cwd: Path) -> Path | None:
        """Find the interpreter of a version such as `3.11`, preferring the controller's own; None if there is none."""
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            return Path(sys.executable)
        if version not in self._interpreters or not self._interpreters[version].exists():
            lines: list[str] = []
            query = ("python", "find", "--no-config", "--no-project", version)
            if await self.run(*query, cwd=cwd, line=lines.append, warnings=False) != 0 or not lines:
                return None
            self._interpreters[version] = Path(lines[-1])
        return self._interpreters[version]

    async def list_pythons(self, cwd: Path) -> list[str]:
        """List the minor versions on this machine, newest first, such as `3.11`."""
        lines: list[str] = []
        query = ("python", "list", "--no-config", "--only-installed", "--output-format", "json")
        found = {(sys.version_info.major, sys.version_info.minor)}
        if await self.run(*query, cwd=cwd, line=lines.append, warnings=False) == 0:
            for item in json.loads("".join(lines)):
                if item["implementation"] == "cpython":
                    found.add((item["version_parts"]["major"], item["version_parts"]["minor"]))
        return [f"{major}.{minor}" for major, minor in sorted(found, reverse=True)]


def _of_operators_home(environ: Mapping[str, str]) -> dict[str, str]:
    """What uv would find through the operator's HOME, and builds need: its configuration, and the Pythons it keeps."""
    if not (home := environ.get("HOME")):
        return {}
    configuration = Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "uv" / "uv.toml"
    data = Path(environ.get("XDG_DATA_HOME") or Path(home) / ".local" / "share")
    found = {"UV_PYTHON_INSTALL_DIR": str(data / "uv" / "python")}
    return {**found, "UV_CONFIG_FILE": str(configuration)} if configuration.exists() else found


def _search_path(environ: Mapping[str, str]) -> str:
    """PATH, with pyenv's interpreters instead of its shims, which fail to run for versions that are not selected."""
    home = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/")) / ".pyenv")
    path = environ.get("PATH", os.defpath).split(os.pathsep)
    directories = [directory for directory in path if directory != str(home / "shims")]
    versions = sorted(home.glob("versions/3.*/bin"))
    return os.pathsep.join([*directories, *map(str, versions)])
