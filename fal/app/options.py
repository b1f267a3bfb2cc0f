"""The options of apps and functions: names, types, and spelling suggestions."""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from fal.app.health import HealthCheckConfig
    from fal.app.retries import RetryConfig
    from fal.container import ContainerImage

FUNCTION_DEFAULTS: Mapping[str, object] = {"machine_type": "XS", "keep_alive": 10}
RETRY_CONDITIONS = ("timeout", "server_error", "connection_error")


class FunctionOptions(TypedDict, total=False):
    """Every option except the kind of environment; `fal.App` documents them."""

    image: ContainerImage | dict[str, object]
    requirements: list[str] | list[list[str]]
    requirements_context_dir: str
    local_python_modules: list[str]
    python_version: str
    resolver: str
    compile_bytecode: bool
    force: bool
    env_dict: dict[str, object]
    env_yml: str
    env_yml_str: str
    packages: list[str]
    pip: list[str]
    channels: list[str]
    machine_type: str | list[str]
    num_gpus: int
    regions: list[str]
    keep_alive: int
    min_concurrency: int
    max_concurrency: int
    concurrency_buffer: int
    concurrency_buffer_perc: int
    scaling_delay: int
    max_multiplexing: int
    request_timeout: int
    request_start_timeout: int
    startup_timeout: int
    termination_grace_period_seconds: int
    exposed_port: int
    metrics_port: int
    serve: bool
    setup_function: Callable[..., object]
    metadata: dict[str, object]
    private_logs: bool
    app_files: list[str]
    app_files_ignore: list[str]
    app_files_context_dir: str
    health_check_config: HealthCheckConfig
    skip_retry_conditions: list[str]
    retry_config: RetryConfig | Mapping[str, object]
    secrets: list[str]
    data_mounts: list[str]
    _base_image: str
    _scheduler: str
    _scheduler_options: dict[str, object]


class Options(FunctionOptions, total=False):
    """Every option."""

    kind: str


ENVIRONMENT_KEYS: Mapping[str, tuple[str, ...]] = {
    "virtualenv": ("python_version", "requirements", "resolver", "compile_bytecode", "force"),
    "container": ("image", "python_version", "requirements", "resolver", "force"),
    "conda": ("python_version", "env_dict", "env_yml", "env_yml_str", "packages", "pip", "channels"),
}
_KIND_KEYS = frozenset(key for keys in ENVIRONMENT_KEYS.values() for key in keys)
_TEXT_LISTS = frozenset(
    [
        "local_python_modules",
        "regions",
        "app_files",
        "app_files_ignore",
        "secrets",
        "data_mounts",
        "packages",
        "pip",
        "channels",
        "skip_retry_conditions",
    ]
)
_NUMBERS = frozenset(
    [
        "num_gpus",
        "keep_alive",
        "min_concurrency",
        "max_concurrency",
        "concurrency_buffer",
        "concurrency_buffer_perc",
        "scaling_delay",
        "max_multiplexing",
        "request_timeout",
        "request_start_timeout",
        "startup_timeout",
        "termination_grace_period_seconds",
    ]
)
_PORTS = frozenset({"exposed_port", "metrics_port"})
_FLAGS = frozenset({"serve", "private_logs", "compile_bytecode", "force"})
_TEXTS = frozenset(
    [
        "kind",
        "requirements_context_dir",
        "python_version",
        "resolver",
        "env_yml",
        "env_yml_str",
        "app_files_context_dir",
        "_base_image",
        "_scheduler",
    ]
)


def check_options(options: Mapping[str, object], owner: str) -> None:
    """Check names and types; None means "not given".

    Args:
        options: the options by name.
        owner: what they belong to, for messages, for example "class MyApp".

    Raises:
        ValueError: an option is unknown (the message suggests the nearest one), or its value has the wrong kind.
    """
    taken = [
        name
        for name, value in options.items()
        if name in Options.__annotations__ and name != "setup_function" and inspect.isroutine(value)
    ]
    if taken[1:]:
        names = f"{', '.join(taken[:-1])} and {taken[-1]}"
        raise ValueError(f"{owner}: {names} are settings, and functions have their names: give the functions others")
    if taken:
        raise ValueError(f"{owner}: {taken[0]} is a setting, and a function has its name: give the function another")
    for name, value in options.items():
        if name not in Options.__annotations__:
            raise ValueError(f"{owner} has no option {name!r}{_nearest(name)}")
        problem = None if value is None else _problem(name, value)
        if problem:
            raise ValueError(f"{owner}: {name} is {value!r}: {problem}")


def check_kind(options: Mapping[str, object], owner: str) -> str:
    """Check that the options fit the kind of environment. Return the kind; an image makes it "container".

    Raises:
        ValueError: the kind is unknown, an option belongs to another kind, or a container has app files.
    """
    kind = "container" if options.get("image") is not None else str(options.get("kind") or "virtualenv")
    known = ENVIRONMENT_KEYS.get(kind)
    if known is None:
        raise ValueError(f"{owner}: kind is {kind!r}: the kinds are {', '.join(ENVIRONMENT_KEYS)}")
    for name in sorted(_KIND_KEYS - set(known)):
        if options.get(name):
            raise ValueError(f"{owner}: {name} is not an option of kind {kind!r}, which has {', '.join(sorted(known))}")
    if kind == "container" and options.get("app_files"):
        raise ValueError(f"{owner}: app_files does not go with a container: COPY the files in its Dockerfile")
    if options.get("app_files_context_dir") is not None and not options.get("app_files"):
        raise ValueError(f"{owner}: app_files_context_dir is of no use without app_files")
    return kind


def nearest_option(name: str) -> str | None:
    """Return the option that a name probably misspells, or None."""
    plain = {option.replace("_", ""): option for option in Options.__annotations__ if not option.startswith("_")}
    near = difflib.get_close_matches(name.replace("_", ""), plain, n=1, cutoff=0.85)
    return plain[near[0]] if near else None


def listed(names: Iterable[str]) -> str:
    """Return names on separate lines that fit a terminal."""
    lines = textwrap.wrap(", ".join(sorted(names)), 76, break_on_hyphens=False)
    return "".join(f"\n  {line}" for line in lines)


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, Options.__annotations__, n=1)
    return f": did you mean {near[0]!r}?" if near else f". The options are{listed(Options.__annotations__)}"


def _problem(name: str, value: object) -> str | None:
    if name in _NUMBERS:
        return None if _is_number(value) else "give a whole number of 0 or more"
    if name in _PORTS:
        return None if _is_number(value, 65535) else "give a port, 0 to 65535"
    if name in _FLAGS:
        return None if isinstance(value, bool) else "give True or False"
    if name in _TEXTS:
        return None if isinstance(value, str) and value else "give a text that is not empty"
    if name == "requirements":
        return None if _is_requirements(value) else "give a list of texts, or a list of lists of texts"
    if name == "machine_type":
        return None if (isinstance(value, str) and value) or (_are_texts(value) and value) else "give a name or a list"
    if name in _TEXT_LISTS and not _are_texts(value):
        return "give a list of texts"
    if name == "skip_retry_conditions" and isinstance(value, list) and not set(value) <= set(RETRY_CONDITIONS):
        return f"the conditions are {', '.join(RETRY_CONDITIONS)}"
    return None


def _is_number(value: object, most: int = 2**31 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_requirements(value: object) -> bool:
    return _are_texts(value) or (isinstance(value, list) and all(_are_texts(item) for item in value))
