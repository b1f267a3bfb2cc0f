"""Reads apps from pyproject.toml ([tool.fal.apps.NAME]), and resolves references to apps."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fal.app.app import AUTH_MODES
from fal.app.health import HealthCheck, HealthCheckConfig
from fal.app.options import Options, check_options, listed
from fal.app.retries import checked_retry_config
from fal.container import ContainerImage
from fal.deploy.errors import AppNotFoundError, ProjectFileError

STRATEGIES = ("rolling", "recreate")
_OWN_KEYS = (
    "ref",
    "python_entry_point",
    "image",
    "auth",
    "deployment_strategy",
    "team",
    "name",
    "health_check",
    "app_scale_settings",
    "no_scale",
)
_NOT_IN_FILES = frozenset(
    {"kind", "serve", "setup_function", "metadata", "health_check_config", "force", "local_python_modules"}
    | {"env_dict", "env_yml", "env_yml_str", "packages", "pip", "channels", "resolver", "compile_bytecode"}
    | {"_base_image"}
)
_DOCKERFILE_KEYS = ("dockerfile", "build_args", "secrets", "registries", "entrypoint", "cmd")
_REFERENCE_KEYS = ("image", "registries", "entrypoint", "cmd")
_OPTION_KEYS = tuple(name for name in Options.__annotations__ if name not in _NOT_IN_FILES and name != "image")
_HEALTH_KEYS = tuple(HealthCheckConfig.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppReference:
    """Code in a file, an import path or an image to deploy. Its settings are in pyproject.toml.

    Attributes:
        path, symbol: the file, and the app or function in it.
        entrypoint: an import path of the form "module:attribute" in the environment.
        name: the app's name, if pyproject.toml sets it.
        auth, strategy: pyproject.toml's settings, if any.
        reset_scale: apply the code's scaling settings instead of keeping the app's.
        options: options of the app, by name; the code's own take precedence.
        directory: directory of pyproject.toml, or None.
    """

    path: Path | None = None
    symbol: str | None = None
    entrypoint: str | None = None
    name: str | None = None
    auth: str | None = None
    strategy: str | None = None
    team: str | None = None
    reset_scale: bool = False
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    directory: Path | None = None


def resolve_reference(app_ref: str | tuple[str | None, str | None] | None) -> AppReference:
    """Resolve a reference to an app.

    Args:
        app_ref: "path/to/file.py", "path/to/file.py::Name", the name of an app in pyproject.toml, or a tuple of file
            and name. None means the only app of pyproject.toml or, if it has none, the only Python file here.

    Raises:
        AppNotFoundError: there is no match, or more than one.
        ProjectFileError: pyproject.toml is invalid.
    """
    if isinstance(app_ref, tuple):
        file, symbol = app_ref
    else:
        file, separator, rest = (app_ref or "").partition("::")
        symbol = rest if separator else None
    if not file:
        return _discover(symbol)
    if symbol is None and not file.endswith(".py") and not Path(file).is_file():
        return app_of_project(file)
    return AppReference(path=Path(file).absolute(), symbol=symbol)


def _discover(symbol: str | None) -> AppReference:
    project = _project_file()
    if symbol is None and project is not None:
        names = list(_apps(project))
        if len(names) == 1:
            return app_of_project(names[0])
        if names:
            raise AppNotFoundError(f"{project} has several apps: {', '.join(names)}. Name the one to deploy")
    files = sorted(Path.cwd().glob("*.py"))
    if len(files) == 1:
        return AppReference(path=files[0], symbol=symbol)
    found = f"{len(files)} Python files ({', '.join(path.name for path in files[:5])})" if files else "no Python file"
    raise AppNotFoundError(f"{Path.cwd()} has {found} and no app in a pyproject.toml: name the app's file")


def app_of_project(name: str) -> AppReference:
    """Return an app of the pyproject.toml in this directory or above.

    Raises:
        AppNotFoundError: there is no such app, or no pyproject.toml with apps.
        ProjectFileError: its entry is invalid.
    """
    project = _project_file()
    if project is None:
        raise AppNotFoundError(
            f"there is no file {name}, and no pyproject.toml with [tool.fal.apps] here or above: "
            f"name the app's file, or add [tool.fal.apps.{name}]"
        )
    apps = _apps(project)
    table = apps.get(name)
    if table is None:
        near = difflib.get_close_matches(name, apps, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise AppNotFoundError(f"{project} has no [tool.fal.apps.{name}]; it has {', '.join(apps) or 'none'}.{hint}")
    return _read(name, table, project)


def _project_file() -> Path | None:
    """Return the nearest pyproject.toml, here or above, with [tool.fal]."""
    for directory in (Path.cwd(), *Path.cwd().parents):
        path = directory / "pyproject.toml"
        if path.is_file() and "fal" in _table(_parsed(path), "tool", path):
            return path
    return None


def _parsed(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ProjectFileError(f"{path} cannot be read: {error}") from error


def _table(parent: Mapping[str, object], key: str, path: Path) -> Mapping[str, object]:
    value = parent.get(key, {})
    if not isinstance(value, Mapping):
        raise ProjectFileError(f"{path}: {key} is {value!r}: make it a table")
    return value


def _apps(path: Path) -> dict[str, Mapping[str, object]]:
    tables = _table(_table(_table(_parsed(path), "tool", path), "fal", path), "apps", path)
    return {name: _table(tables, name, path) for name in tables}


def _read(name: str, table: Mapping[str, object], project: Path) -> AppReference:
    owner = f"[tool.fal.apps.{name}] of {project}"
    for key in table:
        if key not in _OWN_KEYS and key not in _OPTION_KEYS:
            near = difflib.get_close_matches(key, (*_OWN_KEYS, *_OPTION_KEYS), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are{listed(_OWN_KEYS + _OPTION_KEYS)}"
            raise ProjectFileError(f"{owner} has an unknown key {key!r}: {hint}")
    ref = _text(table, "ref", owner)
    entrypoint = _text(table, "python_entry_point", owner)
    image = table.get("image")
    if ref and entrypoint:
        raise ProjectFileError(f"{owner} has both ref and python_entry_point: keep one")
    if not ref and not entrypoint and image is None:
        raise ProjectFileError(f'{owner} names nothing to run: add ref = "file.py::App", python_entry_point or image')
    if entrypoint and not all(entrypoint.partition(":")):
        raise ProjectFileError(f'{owner}: python_entry_point is {entrypoint!r}: write "module:Symbol"')
    file, separator, symbol = (ref or "").partition("::")
    return AppReference(
        path=(project.parent / file).absolute() if file else None,
        symbol=symbol if separator else None,
        entrypoint=entrypoint,
        name=_text(table, "name", owner) or name,
        auth=_choice(table, "auth", AUTH_MODES, owner),
        strategy=_choice(table, "deployment_strategy", STRATEGIES, owner),
        team=_text(table, "team", owner),
        reset_scale=_reset_scale(table, owner),
        options=_options(table, owner, project.parent, bare=not ref and not entrypoint),
        directory=project.parent,
    )


def _options(table: Mapping[str, object], owner: str, directory: Path, *, bare: bool) -> dict[str, object]:
    options = {key: value for key, value in table.items() if key in _OPTION_KEYS}
    try:
        check_options(options, owner)
        if options.get("retry_config") is not None:
            options["retry_config"] = checked_retry_config(options["retry_config"])
        if "image" in table:
            options["image"] = _image(table["image"], owner, directory, bare=bare)
    except (ValueError, OSError) as error:
        said = str(error)
        raise ProjectFileError(said if said.startswith(owner) else f"{owner}: {said}") from error
    if "health_check" in table:
        options["health_check_config"] = _health_check(table["health_check"], owner, bare=bare)
    if isinstance(options.get("app_files_context_dir"), str):
        options["app_files_context_dir"] = str(directory / str(options["app_files_context_dir"]))
    return options


def _health_check(table: object, owner: str, *, bare: bool) -> HealthCheckConfig:
    if not isinstance(table, Mapping) or not isinstance(table.get("path"), str):
        raise ProjectFileError(f'{owner}: health_check is {table!r}: write {{ path = "/health" }}')
    unknown = set(table) - set(_HEALTH_KEYS)
    if unknown:
        raise ProjectFileError(
            f"{owner}: health_check has {', '.join(sorted(unknown))}: its keys are {', '.join(_HEALTH_KEYS)}"
        )
    method, regularly = table.get("method", "GET" if bare else None), table.get("call_regularly")
    if not isinstance(method, str | None) or not isinstance(regularly, bool | None):
        raise ProjectFileError(
            f"{owner}: health_check has a method that is no text, or a call_regularly that is no flag"
        )
    try:
        check = HealthCheck(
            start_period_seconds=_number(table, "start_period_seconds"),
            timeout_seconds=_number(table, "timeout_seconds"),
            failure_threshold=_number(table, "failure_threshold"),
            call_regularly=regularly,
            method=method,
        )
    except ValueError as error:
        raise ProjectFileError(f"{owner}: {error}") from error
    return HealthCheckConfig(
        path=table["path"],
        start_period_seconds=check.start_period_seconds,
        timeout_seconds=check.timeout_seconds,
        failure_threshold=check.failure_threshold,
        call_regularly=check.call_regularly,
        method=check.method,
    )


def _number(table: Mapping[str, object], key: str) -> int | None:
    value = table.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(f"health_check.{key} is {value!r}: give a whole number")


def _reset_scale(table: Mapping[str, object], owner: str) -> bool:
    for key in ("app_scale_settings", "no_scale"):
        value = table.get(key)
        if value is not None and not isinstance(value, bool):
            raise ProjectFileError(f"{owner}: {key} is {value!r}: give true or false")
    if "no_scale" in table:  # the older name, with the opposite meaning
        return not table["no_scale"]
    return bool(table.get("app_scale_settings", False))


def _text(table: Mapping[str, object], key: str, owner: str) -> str | None:
    value = table.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise ProjectFileError(f"{owner}: {key} is {value!r}: give a text")
    return value


def _choice(table: Mapping[str, object], key: str, choices: tuple[str, ...], owner: str) -> str | None:
    value = _text(table, key, owner)
    if value is not None and value not in choices:
        raise ProjectFileError(f"{owner}: {key} is {value!r}: give one of {', '.join(choices)}")
    return value


def _image(table: object, owner: str, directory: Path, *, bare: bool) -> dict[str, object]:
    """Return an image as a deploy sends it.

    Args:
        table: the settings in pyproject.toml.
        owner: what the image belongs to, for messages.
        directory: directory of pyproject.toml, which paths are relative to.
        bare: whether the image runs unchanged, without Python code of the app.

    Raises:
        ValueError: it is neither a Dockerfile nor an image, or a value is invalid.
        OSError: the Dockerfile cannot be read.
    """
    if not isinstance(table, Mapping) or ("dockerfile" in table) == ("image" in table):
        raise ValueError(f'{owner}: image needs either dockerfile = "path" or image = "reference"')
    known = _DOCKERFILE_KEYS if "dockerfile" in table else _REFERENCE_KEYS
    unknown = set(table) - set(known)
    if unknown:
        raise ValueError(f"{owner}: image has {', '.join(sorted(unknown))}: here its keys are {', '.join(known)}")
    rest = {key: value for key, value in table.items() if key not in ("dockerfile", "image")}
    if bare:
        rest["use_isolate"] = False
    source = table.get("dockerfile") or table.get("image")
    if not isinstance(source, str) or not source.strip():
        raise ValueError(f"{owner}: image names no {'dockerfile' if 'dockerfile' in table else 'image'}")
    if "dockerfile" in table:
        return ContainerImage.from_dockerfile(directory / source, context_dir=directory, **rest).to_dict()
    # Only checks the shared keys by the same rules; the text is not used.
    ContainerImage(f"FROM {source}", context_dir=directory, **rest)
    return {"image": source, **rest}
