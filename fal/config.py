"""Reads and changes profiles in ~/.fal/config.toml, keeping its comments."""

from __future__ import annotations

import fcntl
import os
import tomllib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fal_grpc.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

INTERNAL = "__internal__"
"""The table with the client's own state: the current profile and the team that it acts for."""


def home_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the client keeps its files: FAL_HOME_DIR, or ~/.fal."""
    return Path(environ.get("FAL_HOME_DIR") or "~/.fal").expanduser()


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the configuration file: FAL_CONFIG_PATH, or ~/.fal/config.toml."""
    return Path(environ.get("FAL_CONFIG_PATH") or "~/.fal/config.toml").expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The content of the file.

    Attributes:
        path: the file, which need not exist.
        profiles: each profile's settings by its name; the client uses `key`, `host` and `ca_file`.
        current_profile: the profile to use unless another is named.
        team: the team that a login token acts for.
        globals: the settings outside any profile.
    """

    path: Path
    profiles: Mapping[str, Mapping[str, object]]
    current_profile: str | None
    team: str | None
    globals: Mapping[str, object]

    def __repr__(self) -> str:
        """Leave out the settings: keys are among them."""
        return f"Config(path={str(self.path)!r}, profiles={list(self.profiles)!r}, current={self.current_profile!r})"

    def setting(self, profile: str, name: str) -> str | None:
        """Return a setting of a profile; None if it is unset or empty.

        Raises:
            ConfigError: there is no such profile, or the setting is not text.
        """
        if profile not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise ConfigError(
                f"There is no profile {profile!r} in {self.path} (profiles: {known}). "
                "`fal profile create` makes one, `fal profile set` chooses another."
            )
        return _text(self.profiles[profile], name, where=f"profile {profile!r} in {self.path}")


def load(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the file; a missing one counts as empty.

    Raises:
        ConfigError: it cannot be read, or is not TOML of the expected form.
    """
    path = config_path(environ) if path is None else path
    try:
        document: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        document = {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}. Fix it, or move it away and start with an empty one."
        ) from None
    internal = document.pop(INTERNAL, {})
    if not isinstance(internal, dict):
        raise ConfigError(f"{path}: {INTERNAL} must be a table")
    return Config(
        path=path,
        profiles={name: table for name, table in document.items() if isinstance(table, dict)},
        current_profile=_text(internal, "profile", where=f"{INTERNAL} in {path}"),
        team=_text(internal, "team", where=f"{INTERNAL} in {path}"),
        globals={name: value for name, value in document.items() if not isinstance(value, dict)},
    )


class ConfigEditor:
    """Changes the file, within `edit`."""

    def __init__(self, document: TOMLDocument, path: Path) -> None:
        self._document = document
        self._path = path

    @property
    def profiles(self) -> list[str]:
        from tomlkit.items import Table

        return [str(name) for name, item in self._document.items() if isinstance(item, Table) and name != INTERNAL]

    def create_profile(self, name: str) -> None:
        """Add a profile without settings.

        Raises:
            ConfigError: there is one of that name, or the name is not allowed.
        """
        import tomlkit

        if name in self.profiles:
            raise ConfigError(f"There is a profile {name!r} already in {self._path}")
        if not name or name == INTERNAL or name in self._document:
            raise ConfigError(f"A profile cannot be named {name!r}")
        self._document.add(name, tomlkit.table())

    def delete_profile(self, name: str) -> None:
        """Remove a profile; if it was the current one, no profile is current."""
        self._profile(name)
        self._document.remove(name)
        if self._internal().get("profile") == name:
            self.set_current(None)

    def set(self, profile: str, setting: str, value: str) -> None:
        """Write a setting of a profile.

        Raises:
            ConfigError: there is no such profile.
        """
        self._profile(profile)[setting] = value

    def unset(self, profile: str, setting: str) -> None:
        """Remove a setting of a profile, if it is there."""
        table = self._profile(profile)
        if setting in table:
            table.remove(setting)

    def set_current(self, profile: str | None) -> None:
        """Choose the profile to use, or none."""
        if profile is not None:
            self._profile(profile)
        self._set_internal("profile", profile)

    def set_team(self, team: str | None) -> None:
        """Choose the team that a login token acts for, or none."""
        self._set_internal("team", team)

    def _profile(self, name: str) -> Table:
        from tomlkit.items import Table

        table = self._document.get(name)
        if name == INTERNAL or not isinstance(table, Table):
            known = ", ".join(sorted(self.profiles)) or "none"
            raise ConfigError(f"There is no profile {name!r} in {self._path} (profiles: {known}).")
        return table

    def _internal(self) -> Table:
        import tomlkit
        from tomlkit.items import Table

        if INTERNAL not in self._document:
            self._document.add(INTERNAL, tomlkit.table())
        table = self._document[INTERNAL]
        if not isinstance(table, Table):
            raise ConfigError(f"{self._path}: {INTERNAL} must be a table")
        return table

    def _set_internal(self, name: str, value: str | None) -> None:
        table = self._internal()
        if value is not None:
            table[name] = value
        elif name in table:
            table.remove(name)


@contextmanager
def edit(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Generator[ConfigEditor, None, None]:
    """Change the file: the block's changes are written at its end, or none if it raises.

    Only its owner can read the file (0600). Comments stay. Another process that edits it at the same time waits.

    Raises:
        ConfigError: it cannot be read or written, or is not TOML.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    # Resolved, so that a symbolic link stays one.
    path = (config_path(environ) if path is None else path).resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            document = tomlkit.parse(text)
            yield ConfigEditor(document, path)
            _replace(path, tomlkit.dumps(document))
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}. Fix it, or move it away and start with an empty one."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be changed: {error.strerror}") from None


@contextmanager
def _locked(directory: Path) -> Generator[None, None, None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    import tempfile

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _text(table: Mapping[str, object], name: str, *, where: str) -> str | None:
    value = table.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        # The value is not repeated: it may be a secret.
        raise ConfigError(f"{where}: {name} must be text, not {type(value).__name__}")
    return value
