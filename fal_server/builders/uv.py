"""Runs uv, and finds the interpreters of this machine."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from fal_runner.isolation.interpreters import of_interpreter, place
from fal_runner.isolation.sandbox import READ, WRITE, Place
from fal_server.builders.places import BuildPlace
from fal_server.builders.process import run_lines
from fal_server.builders.sandboxes import BuildSandbox
from fal_server.core.authorities import SYSTEM_AUTHORITIES
from fal_server.core.identity import LOCAL, AccountId

# An installer gets only what it needs to reach the network and packages, see docs/explanation/security.md: builds run
# foreign code, which sees these variables, and the operator's other variables hold secrets.
_PASSED = re.compile(
    r"PATH|USER|LANG|LANGUAGE|LC_\w+|TZ|NETRC|CC|CXX|CFLAGS|CXXFLAGS|LDFLAGS|CUDA_HOME|"
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
        cache_dir: the cache of packages, unless UV_CACHE_DIR names another.
        environ: the controller's environment variables; uv gets those that it needs.

    Attributes:
        variables: those that uv gets in each build.
    """

    def __init__(self, cache_dir: Path, environ: Mapping[str, str]) -> None:
        passed = {name: value for name, value in environ.items() if _PASSED.fullmatch(name)}
        self._cache = Path(passed.get("UV_CACHE_DIR", cache_dir))
        self.variables = {
            **trusted_authorities(SYSTEM_AUTHORITIES),
            **_of_operators_home(environ),
            **passed,
            "PATH": _search_path(environ),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        self._interpreters: dict[str, Path] = {}

    async def make_environment(
        self, place_of: BuildPlace, interpreter: Path, sandbox: BuildSandbox, line: Callable[[str], None]
    ) -> int:
        """Create a virtual environment; return uv's exit code.

        This reads no data of an account, not even its cache, so that the environment's interpreter can be trusted.
        """
        directory = place_of.environment
        command = (*_uv(), "venv", "--no-cache", "--no-project", "--quiet", "--python", str(interpreter))
        places = [*_program(), *of_interpreter(interpreter), place(WRITE, place_of.built, str(directory))]
        return await sandbox.run([*command, str(directory)], places, variables=self.variables, line=line)

    async def install(
        self,
        place_of: BuildPlace,
        interpreter: Path,
        requirements: str,
        *,
        refresh: bool,
        sandbox: BuildSandbox,
        line: Callable[[str], None],
    ) -> int:
        """Install a requirements file in an environment; return uv's exit code.

        Args:
            refresh: whether to look for newer packages than those in the cache.
        """
        directory, cache = place_of.environment, place_of.cache
        # Compiled here, once; otherwise the first start of an app would take the time.
        command = [*_uv(), "pip", "install", "--compile-bytecode", "--python", str(directory), "--requirements", "-"]
        command += ["--refresh"] if refresh else []
        variables = {**self.variables, "UV_CACHE_DIR": str(cache)}
        if place_of.is_staged:  # one mount of the sandbox holds both
            variables["UV_CACHE_DIR"] = str(directory.parent)
            own = [place(WRITE, cache, str(directory.parent))]
        else:
            own = [place(WRITE, cache), place(WRITE, directory)]
            if sandbox.is_closed:
                variables["UV_LINK_MODE"] = "copy"
        places = [*_program(), *of_interpreter(interpreter), *own]
        return await sandbox.run(command, places, variables=variables, line=line, stdin=requirements)

    def cache_of(self, account: AccountId) -> Path:
        """Return the cache of an account's packages.

        Accounts share none, because a cache holds packages behind passwords, and code of packages can write to it.
        """
        cache = self._cache
        return cache if account == LOCAL else cache.with_name(f"{cache.name}-{account}")

    def caches(self) -> list[Path]:
        """Return the existing caches of all accounts."""
        return sorted(self._cache.parent.glob(f"{self._cache.name}*"))

    async def find_python(self, version: str) -> Path | None:
        """Find the interpreter of a version like `3.11` or `3.11.7`. Prefer the controller's; None if there is none."""
        minor, exact = "{}.{}".format(*sys.version_info), "{}.{}.{}".format(*sys.version_info)
        if version in (minor, exact):  # even if it is not on PATH
            return Path(sys.executable)
        if version not in self._interpreters or not self._interpreters[version].exists():
            lines = await self._answer("python", "find", "--no-project", version)
            if not lines:
                return None
            self._interpreters[version] = Path(lines[-1])
        return self._interpreters[version]

    async def list_pythons(self) -> list[str]:
        """List this machine's minor versions, such as `3.11`, newest first."""
        found = {(sys.version_info.major, sys.version_info.minor)}
        lines = await self._answer("python", "list", "--only-installed", "--output-format", "json")
        for item in json.loads("".join(lines) or "[]"):
            if item["implementation"] == "cpython":
                found.add((item["version_parts"]["major"], item["version_parts"]["minor"]))
        return [f"{major}.{minor}" for major, minor in sorted(found, reverse=True)]

    async def _answer(self, *question: str) -> list[str]:
        """Ask uv about this machine; return its lines, none if it fails. This reads nothing that builds write."""
        lines: list[str] = []
        with tempfile.TemporaryDirectory(prefix="fal-uv-") as nowhere:
            code = await run_lines(
                (*_uv(), *question, "--no-config", "--no-cache"),
                cwd=Path(nowhere),
                variables={**self.variables, "HOME": nowhere},
                line=lines.append,
                warnings=False,
            )
        return lines if code == 0 else []


def _uv() -> tuple[str]:
    return (find_uv_bin(),)


def _program() -> list[Place]:
    return [place(READ, Path(find_uv_bin()))]


def trusted_authorities(files: Sequence[Path]) -> dict[str, str]:
    """Have uv trust the machine's authorities, as pip does. Proxies may have their own authority.

    A machine without any authorities, such as a slim image, keeps those of uv.
    """
    return {"UV_SYSTEM_CERTS": "1"} if any(file.exists() for file in files) else {}


def _of_operators_home(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables for what uv would find in the operator's HOME. This is its configuration and its Pythons."""
    if not (home := environ.get("HOME")):
        return {}
    configuration = Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "uv" / "uv.toml"
    data = Path(environ.get("XDG_DATA_HOME") or Path(home) / ".local" / "share")
    found = {"UV_PYTHON_INSTALL_DIR": str(data / "uv" / "python")}
    return {**found, "UV_CONFIG_FILE": str(configuration)} if configuration.exists() else found


def _search_path(environ: Mapping[str, str]) -> str:
    """Return PATH with pyenv's interpreters instead of its shims. Shims fail for versions that are not selected."""
    home = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/")) / ".pyenv")
    path = environ.get("PATH", os.defpath).split(os.pathsep)
    directories = [directory for directory in path if directory != str(home / "shims")]
    versions = sorted(home.glob("versions/3.*/bin"))
    return os.pathsep.join([*directories, *map(str, versions)])
