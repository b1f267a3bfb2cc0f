"""Writes a report without secrets that can be shared. It has the doctor's results, settings and controller's log."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, unquote

from fal_cli.exit_codes import CommandError

_MASK = "******"
_LOG_BYTES = 2 << 20
_SHORTEST = 6  # shorter values would mask ordinary words
# Variables whose values may be shown. Of all others only the names are.
_SHOWN = re.compile(
    r"FAL_(\w+_)?(HOST|PROFILE|ENV|TLS|TIMEOUT|DIR|PATH|ENGINE)|ISOLATE_\w+|(SSL|GRPC)_\w+|LANG|TERM|TZ"
)
_NAMES = re.compile(r"(FAL|ISOLATE|SSL|GRPC)_\w+|\w+_proxy|LANG|TERM|TZ", re.IGNORECASE)
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|AUTH|DATABASE_URL", re.IGNORECASE)
# Text that looks like a secret, from any source.
_PATTERNS = (
    (re.compile(r"\b([0-9a-f-]{16,36}):[0-9a-f]{16,}"), rf"\1:{_MASK}"),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{_MASK}@"),
    # The same without a scheme, as in the address of a proxy.
    (re.compile(r"(?<![^\s=\"'])[^/\s@:=\"']+:[^/\s@]+@(?=[\w\[])"), f"{_MASK}@"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"), _MASK),
    (re.compile(r"((?:Key|Bearer|Basic)\s+)[^\s\"',]{6,}"), rf"\1{_MASK}"),
    (re.compile(r"(?i)((?:password|passwd|secret|token|api_?key)[\"']?\s*[:=]\s*[\"']?)[^\s\"',}]+"), rf"\1{_MASK}"),
)


def write_bundle(path: Path, report: Mapping[str, object], state_dir: Path) -> list[str]:
    """Write the report as a .tar.gz, and return its files' names. Only its owner can read it.

    Raises:
        CommandError: the file exists or cannot be written.
    """
    known = sorted(_forms(_secrets(state_dir)), key=len, reverse=True)
    files = {name: _masked(text, known) for name, text in _files(report, state_dir)}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in files.items():
                content = text.encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"fal-report/{name}")
                entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(content))
    except FileExistsError:
        raise CommandError(f"{path} exists already: choose another file") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    return list(files)


def _files(report: Mapping[str, object], state_dir: Path) -> Iterator[tuple[str, str]]:
    from fal.config import config_path, own_path

    yield "doctor.json", json.dumps(report, indent=2)
    yield "packages.txt", "".join(sorted(f"{found.name} {found.version}\n" for found in metadata.distributions()))
    yield (
        "environment.txt",
        "".join(f"{name}={_shown(name)}\n" for name in sorted(os.environ) if _NAMES.fullmatch(name)),
    )
    for name, path in (("config.toml", config_path()), ("config.fal-grpc.toml", own_path(config_path()))):
        if (text := _read(path)) is not None:
            yield name, _without_values(text)
    for name in ("controller.json", "controller.log"):
        if (text := _read(state_dir / name)) is not None:
            yield name, text


def _shown(name: str) -> str:
    if name.lower().endswith("_proxy") or (_SHOWN.fullmatch(name) and not _SECRET_NAME.search(name)):
        return os.environ[name]
    return "(set)"


def _read(path: Path) -> str | None:
    """Return the end of a file; None if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LOG_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


def _without_values(toml: str) -> str:
    """Return a configuration file with all names. Only the values of hosts, places and profiles are kept."""
    kept = re.compile(
        r"\s*(\[.*\]|(host|state_dir|ca_file|client_cert_file|client_key_file|profile|team)\s*=.*)?\s*(#.*)?"
    )
    lines = []
    for line in toml.splitlines():
        name, equals, _ = line.partition("=")
        lines.append(line.partition("#")[0] if kept.fullmatch(line) else f"{name}{equals} {_MASK}" if equals else "")
    return "\n".join(lines) + "\n"


def _secrets(state_dir: Path) -> Iterator[str]:
    """Yield this user's secrets, which must not appear in a report."""
    from fal.api import FalError
    from fal.config import home_dir, load

    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield value
        yield _password(value)
    try:
        for settings in load().profiles.values():
            yield str(settings.get("key") or "")
    except FalError:
        pass
    for path in (state_dir / "admin.key", state_dir / "master.key", home_dir() / "auth0_token"):
        yield from (_read(path) or "").split()


def _password(value: str) -> str:
    """Return the password in an address, with or without a scheme. It is "" if there is none."""
    authority = value.rpartition("://")[2].partition("/")[0]
    user, _, host = authority.rpartition("@")
    return unquote(user.partition(":")[2]) if host else ""


def _forms(values: Iterable[str]) -> set[str]:
    """Return the spellings of secrets: plain, for URLs, in JSON, in base64. The secret half of a key is one, too."""
    found: set[str] = set()
    for value in values:
        for part in {value, value.rpartition(":")[2], *value.split()}:
            encoded = base64.b64encode(part.encode("utf-8", "surrogateescape")).decode()
            found |= {part, quote(part, safe=""), json.dumps(part)[1:-1], encoded.rstrip("=")}
    return {form for form in found if len(form) >= _SHORTEST}


def _masked(text: str, known: Iterable[str]) -> str:
    for form in known:
        text = text.replace(form, _MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
