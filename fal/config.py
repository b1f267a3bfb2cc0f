"""Reads profiles from the published client's file and our own. Writes only our own.

The published client reads ~/.fal/config.toml at import, and fails if the current profile's host does not begin with
"api". So our profiles, and the choice of the current one, live in a separate file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fal_grpc.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

INTERNAL = "__internal__"
"""The table for the client's own state: the current profile and the team to act for."""


def truthy(environ: Mapping[str, str], name: str) -> bool:
    """Return whether a variable is something other than 0, false or empty."""
    return environ.get(name, "").strip().lower() not in ("", "0", "false")


def home_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory for the client's files: FAL_HOME_DIR, or ~/.fal."""
    return Path(environ.get("FAL_HOME_DIR") or "~/.fal").expanduser()


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file that we share with the published client: FAL_CONFIG_PATH, or ~/.fal/config.toml."""
    return Path(environ.get("FAL_CONFIG_PATH") or "~/.fal/config.toml").expanduser()


def own_path(path: Path) -> Path:
    """Return our own file beside the published client's: ~/.fal/config.fal-grpc.toml."""
    return path.with_name(f"{path.stem}.fal-grpc.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The merged content of both files. If both define a profile, ours wins.

    Attributes:
        path: the published client's file, which need not exist.
        own_path: our own file, which need not exist either.
        profiles: each profile's settings by its name; the client uses `key`, `host`, `ca_file`,
            `client_cert_file` and `client_key_file`.
        current_profile: the profile to use unless the caller names another.
        chosen_in: the file that names the current profile.
        team: the team that a login token acts for.
    """

    path: Path
    own_path: Path
    profiles: Mapping[str, Mapping[str, object]]
    current_profile: str | None
    chosen_in: Path
    team: str | None

    def __repr__(self) -> str:
        """Omit the settings, because they include keys."""
        return f"Config(path={str(self.path)!r}, profiles={list(self.profiles)!r}, current={self.current_profile!r})"

    def setting(self, profile: str, name: str) -> str | None:
        """Return a profile's setting, or None if it is unset or empty.

        Raises:
            ConfigError: there is no such profile, or the setting is not text.
        """
        if profile not in self.profiles:
            raise ConfigError(
                f"{_no_profile(profile, self.profiles, self.path, self.own_path)}. "
                "`fal profile create` makes one, `fal profile set` chooses another."
            )
        return _text(self.profiles[profile], name, where=f"profile {profile!r} of {self.own_path} or {self.path}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ProfileFile:
    """The content of one of the two files."""

    path: Path
    profiles: Mapping[str, Mapping[str, object]]
    internal: Mapping[str, object]

    def internal_text(self, name: str) -> str | None:
        return _text(self.internal, name, where=f"{INTERNAL} in {self.path}")


def load(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read both files; a missing file counts as empty.

    Args:
        path: the published client's file; ours lies beside it.
        environ: the environment variables.

    Raises:
        ConfigError: a file cannot be read, is not TOML, or does not have the expected form.
    """
    path = config_path(environ) if path is None else path
    shared, own = _read(path), _read(own_path(path))
    chosen_by = own if "profile" in own.internal else shared
    return Config(
        path=path,
        own_path=own.path,
        profiles={**shared.profiles, **own.profiles},
        current_profile=chosen_by.internal_text("profile"),
        chosen_in=chosen_by.path,
        team=shared.internal_text("team"),
    )


def _read(path: Path) -> _ProfileFile:
    try:
        # Editors on Windows may start a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        text = ""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _not_toml(path, error) from None
    document = _parsed(path, text) if text else {}
    internal = document.pop(INTERNAL, {})
    if not isinstance(internal, dict):
        raise ConfigError(f"{path}: {INTERNAL} must be a table")
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    return _ProfileFile(path=path, profiles=tables, internal=internal)


def _parsed(path: Path, text: str) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(path, error) from None


class ConfigEditor:
    """Changes our own file inside `edit`. Changing one of the published client's profiles copies it first."""

    def __init__(self, document: TOMLDocument, shared: _ProfileFile, path: Path) -> None:
        self._document = document
        self._shared = shared
        self._path = path

    @property
    def profiles(self) -> list[str]:
        return list(dict.fromkeys([*self._shared.profiles, *self._own_profiles()]))

    @property
    def current_profile(self) -> str | None:
        """The profile in use unless the caller names another."""
        table = self._document.get(INTERNAL, {})
        if "profile" in table:
            return _text(table, "profile", where=f"{INTERNAL} in {self._path}")
        return self._shared.internal_text("profile")

    def setting(self, profile: str, name: str) -> str | None:
        """Return a setting of a profile; None if unset or empty."""
        where = f"profile {profile!r} of {self._path} or {self._shared.path}"
        own = self._document.get(profile)
        return _text(
            own if self._is_own(profile) and own else self._shared.profiles.get(profile, {}), name, where=where
        )

    def create_profile(self, name: str) -> None:
        """Add a profile without settings.

        Raises:
            ConfigError: the name is taken or not allowed.
        """
        import tomlkit

        if name in self.profiles:
            raise ConfigError(f"There is a profile {name!r} already")
        if not name or name == INTERNAL or name in self._document:
            raise ConfigError(f"A profile cannot be named {name!r}")
        self._document.add(name, tomlkit.table())

    def copy_profile(self, name: str) -> None:
        """Copy a profile of the published client into our file. A profile of that name in ours is kept.

        Raises:
            ConfigError: there is no such profile.
        """
        import tomlkit

        self._check(name)
        if not self._is_own(name):
            table = tomlkit.table()
            table.update(self._shared.profiles[name])
            self._document.add(name, table)

    def require_own(self, name: str) -> None:
        """Raise an error if a profile cannot be removed.

        Raises:
            ConfigError: there is no such profile, or it is in the published client's file.
        """
        self._check(name)
        if name in self._shared.profiles:
            raise ConfigError(
                f"The profile {name!r} is in {self._shared.path}, the published client's file: delete it there"
            )

    def delete_profile(self, name: str) -> None:
        """Remove a profile. If it was the current one, no profile is current.

        Raises:
            ConfigError: see `require_own`.
        """
        self.require_own(name)
        was_current = self.current_profile == name
        self._document.remove(name)
        if was_current:
            self.set_current(None)

    def set(self, profile: str, setting: str, value: str) -> None:
        """Write a setting of a profile.

        Raises:
            ConfigError: there is no such profile.
        """
        self._profile(profile)[setting] = value

    def unset(self, profile: str, setting: str) -> None:
        """Remove a setting of a profile if it is set."""
        table = self._profile(profile)
        if setting in table:
            table.remove(setting)

    def set_current(self, profile: str | None) -> None:
        """Choose the profile to use, or none. This overrides the published client's file."""
        import tomlkit
        from tomlkit.items import Table

        if profile is not None:
            self._check(profile)
        if INTERNAL not in self._document:
            self._document.add(INTERNAL, tomlkit.table())
        table = self._document[INTERNAL]
        if not isinstance(table, Table):
            raise ConfigError(f"{self._path}: {INTERNAL} must be a table")
        table["profile"] = profile or ""

    def _own_profiles(self) -> list[str]:
        return [str(name) for name in self._document if self._is_own(str(name))]

    def _is_own(self, name: str) -> bool:
        from tomlkit.items import Table

        return name != INTERNAL and isinstance(self._document.get(name), Table)

    def _check(self, name: str) -> None:
        if name not in self.profiles:
            raise ConfigError(_no_profile(name, self.profiles, self._shared.path, self._path))

    def _profile(self, name: str) -> Table:
        from tomlkit.items import Table

        self.copy_profile(name)
        found = self._document[name]
        if not isinstance(found, Table):
            raise ConfigError(f"{self._path}: {name} must be a table")
        return found


@contextmanager
def edit(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Generator[ConfigEditor, None, None]:
    """Change our own file. The block's changes are written at its end, or none if it raises.

    Only the file's owner can read it (0600). Comments are kept. A concurrent edit by another process waits.

    Raises:
        ConfigError: it cannot be read or written, or is not TOML.
    """
    path = config_path(environ) if path is None else path
    with _written(own_path(path)) as document:
        yield ConfigEditor(document, _read(path), own_path(path))


def take_over(profile: str, path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> bool:
    """Move a profile from the published client's file into ours. If it was the current one, it still is.

    Earlier versions wrote it there, but the published client cannot be imported with such a host.

    Returns:
        Whether there was such a profile.

    Raises:
        ConfigError: a file cannot be read or written, or is not TOML.
    """
    path = config_path(environ) if path is None else path
    found = _read(path)
    host = found.profiles.get(profile, {}).get("host")
    if not isinstance(host, str) or host.startswith("api"):
        return False
    current = load(path).current_profile
    with edit(path) as editor:
        editor.copy_profile(profile)
        if current == profile:
            editor.set_current(profile)
    with _written(path) as document:
        document.remove(profile)
        if found.internal.get("profile") == profile:
            internal = document[INTERNAL]
            internal.remove("profile")
            if not internal:
                document.remove(INTERNAL)
    return True


@contextmanager
def _written(path: Path) -> Generator[TOMLDocument, None, None]:
    """Read a file, let the block edit it, and write it back."""
    import tomlkit
    from filelock import FileLock
    from tomlkit.exceptions import TOMLKitError

    path = path.resolve()  # keep a symbolic link as it is
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
            document = tomlkit.parse(text)
            yield document
            if (changed := tomlkit.dumps(document)) != text:
                _replace(path, changed)
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise _not_toml(path, error) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be changed: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    import tempfile

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _not_toml(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is not valid TOML: {error}. Fix it, or move it away and start with an empty one.")


def _no_profile(name: str, profiles: Collection[str], path: Path, own: Path) -> str:
    known = ", ".join(sorted(profiles)) or "none"
    return f"There is no profile {name!r} in {own} or {path} (profiles: {known})"


def _text(table: Mapping[str, object], name: str, *, where: str) -> str | None:
    value = table.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        # Do not repeat the value: it may be a secret.
        raise ConfigError(f"{where}: {name} must be text, not {type(value).__name__}")
    return value
