"""Loads, describes and packs an app. It makes everything that a deploy or a run sends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from fal.app.app import App
from fal.app.options import FUNCTION_DEFAULTS, Options, check_kind
from fal.container import ContainerImage
from fal.deploy.errors import AppFileError, DeployError, SerializationError
from fal.deploy.files import AppFile, app_dir_in, collect_files, context_dir, relative_to
from fal.deploy.load import LoadedApp, load_app
from fal.deploy.pickling import Pickled, dumped, imported, pickled
from fal.deploy.project import AppReference, resolve_reference
from fal.deploy.requirements import (
    is_this_python,
    python_version,
    refuse_local_requirements,
)
from fal.deploy.serving import WayToServe, ways_to_serve
from fal.deploy.sources import MAX_DATA_BYTES, METHOD, Sources, collect, pack

DEFAULT_PORT = 8080
DEFAULT_METRICS_PORT = 9090


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A callable in its two forms of transport.

    Attributes:
        bundle: as modules, see `fal.deploy.sources`.
        by_value: as a pickle, or the reason why there is none.
        app_dir: directory of the app's file relative to the app's files; None if none are sent.
        files: the sources in the bundle, by their paths below the directory to import from.
        paths: the same files on this machine.
    """

    bundle: bytes
    by_value: Pickled | SerializationError
    app_dir: str | None
    files: tuple[str, ...]
    paths: tuple[Path, ...] = ()

    def pickle(self) -> bytes:
        """Return the pickle.

        Raises:
            SerializationError: it cannot be pickled; the message says which name and where.
        """
        if isinstance(self.by_value, SerializationError):
            raise self.by_value
        return self.by_value.definition(self.app_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedApp:
    """An app, ready to be sent.

    Attributes:
        app_name: the name to deploy it under, without an environment's suffix.
        display_name: the class, function or import path that it comes from.
        auth: who may call it, if known.
        strategy, reset_scale: pyproject.toml's settings for the deploy.
        options: its options, by name, with requirements and Python version complete.
        function: the callable; None for an import path or a bare image.
        setup: a function to call first.
        entrypoint: an import path of the form "module:attribute", instead of a definition.
        metadata: its OpenAPI description and more.
        files: the files to send with it.
        exposed_port, metrics_port: the ports it listens on; None if it serves nothing.
        serving: how it is served; None if it serves nothing or serves itself.
        other_ways: alternatives, if its environment cannot be built that way.
        methods: how the controller's runners load code, besides pickles; known after the build.
    """

    app_name: str
    display_name: str
    auth: str | None
    strategy: str | None = None
    reset_scale: bool = False
    options: Mapping[str, object] = field(repr=False)
    kind: str
    function: Code | None = field(default=None, repr=False)
    setup: Code | None = field(default=None, repr=False)
    entrypoint: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False)
    source_code: str | None = field(default=None, repr=False)
    files: tuple[AppFile, ...] = ()
    exposed_port: int | None = None
    metrics_port: int | None = None
    serving: WayToServe | None = None
    other_ways: tuple[WayToServe, ...] = field(default=(), repr=False)
    methods: tuple[str, ...] = ()

    @property
    def travels_as_modules(self) -> bool:
        """Whether the controller takes the app's code as modules, not a pickle."""
        return METHOD in self.methods

    def served_otherwise(self, cause: str = "") -> PreparedApp:
        """Return the app with the next way to serve it.

        Args:
            cause: the requirement that conflicts with the current way.
        """
        serving, *others = self.other_ways
        serving = replace(serving, cause=cause)
        options = {**self.options, _requirements_key(self.kind): serving.requirements}
        return replace(self, options=options, serving=serving, other_ways=tuple(others))

    def served_as(self, way: WayToServe | None) -> PreparedApp:
        """Return the app with its previous build's way of serving. It stays as it is if that is not available."""
        app = self
        while app.serving != way and app.other_ways:
            app = app.served_otherwise()
        return replace(app, serving=way) if app.serving == way else self


def prepare(
    app_ref: str | tuple[str | None, str | None] | None,
    *,
    app_name: str | None = None,
    auth: str | None = None,
    machine_type: str | Sequence[str] | None = None,
    arguments: tuple[object, ...] = (),
    keywords: Mapping[str, object] | None = None,
    limit_max_requests: int | None = None,
) -> PreparedApp:
    """Load an app and prepare it for sending. Nothing is sent yet.

    Args:
        app_ref: as for `resolve_reference`.
        app_name, auth, machine_type: override the code and pyproject.toml.
        arguments, keywords: arguments of a function to call.
        limit_max_requests: end an app after this many requests.

    Raises:
        DeployError: it is not found, is invalid, or cannot be loaded or pickled; see the subclasses.
    """
    reference = resolve_reference(app_ref)
    forced = {} if machine_type is None else {"machine_type": machine_type}
    if reference.path is None:
        return _without_code(reference, app_name, auth, forced)
    with load_app(reference.path, reference.symbol) as loaded:
        options, kind = _merged(loaded, reference, forced)
        return _with_code(
            loaded, reference, options, kind, app_name, auth, (arguments, keywords or {}), limit_max_requests
        )


def _without_code(
    reference: AppReference, app_name: str | None, auth: str | None, forced: Mapping[str, object]
) -> PreparedApp:
    """Prepare an environment's import path, or an image that runs unchanged."""
    name = app_name or reference.name or ""
    options = {**FUNCTION_DEFAULTS, **reference.options, **forced}
    kind = _kind(options, name)
    refuse_local_requirements(options.get("requirements"), name)
    options["python_version"] = python_version(options, code=False, owner=name)
    port = _int(options.get("exposed_port"))
    metrics_port = _int(options.get("metrics_port"))
    if reference.entrypoint is not None:
        port = DEFAULT_PORT if port is None else port
        metrics_port = DEFAULT_METRICS_PORT if metrics_port is None else metrics_port
    return PreparedApp(
        app_name=name,
        display_name=reference.entrypoint or name,
        auth=auth or reference.auth,
        strategy=reference.strategy,
        reset_scale=reference.reset_scale,
        options=options,
        kind=kind,
        entrypoint=reference.entrypoint,
        files=_files(options, kind, reference.directory and reference.directory / "pyproject.toml", None),
        exposed_port=port,
        metrics_port=metrics_port,
    )


def _with_code(
    loaded: LoadedApp,
    reference: AppReference,
    options: dict[str, object],
    kind: str,
    app_name: str | None,
    auth: str | None,
    call: tuple[tuple[object, ...], Mapping[str, object]],
    limit_max_requests: int | None,
) -> PreparedApp:
    _warn_of_near_misses(loaded)
    metadata = _metadata(loaded)
    packer = _Packer(loaded, options, kind, limit_max_requests)
    ways = _ways(loaded, options, kind, packer.sources)
    if ways:
        options[_requirements_key(kind)] = ways[0].requirements
    setup = options.get("setup_function")
    serves = isinstance(loaded.target, type) or loaded.target.serves
    port = _int(options.get("exposed_port"))
    if port is None and serves:
        port = DEFAULT_PORT
    metrics_port = _int(options.get("metrics_port"))
    return PreparedApp(
        app_name=app_name or reference.name or loaded.target.app_name or loaded.symbol,
        display_name=loaded.symbol,
        auth=auth or reference.auth or loaded.target.app_auth,
        strategy=reference.strategy,
        reset_scale=reference.reset_scale,
        options=options,
        kind=kind,
        function=packer.function(*call),
        setup=None if setup is None else packer.setup(setup),
        metadata=metadata,
        source_code=loaded.source_code,
        files=_files(options, kind, loaded.path, loaded.path),
        exposed_port=port,
        metrics_port=DEFAULT_METRICS_PORT if metrics_port is None and port is not None else metrics_port,
        serving=ways[0] if ways else None,
        other_ways=ways[1:],
    )


def _ways(loaded: LoadedApp, options: Mapping[str, object], kind: str, sources: Sources) -> tuple[WayToServe, ...]:
    """Return the ways to serve an app. There are none for a function that serves nothing."""
    target = loaded.target
    realtime = False
    if isinstance(target, type):
        realtime = any(route.is_websocket for route in target(_allow_init=True).collect_routes())
    elif not target.serves:
        return ()
    texts = [text.decode(errors="replace") for path, text in sources.files.items() if path.endswith(".py")]
    return ways_to_serve(options.get(_requirements_key(kind)), realtime=realtime, sources=texts)


def _requirements_key(kind: str) -> str:
    return "pip" if kind == "conda" else "requirements"


def _merged(loaded: LoadedApp, reference: AppReference, forced: Mapping[str, object]) -> tuple[dict[str, object], str]:
    """Return the options and the kind. Options are those of the code, else of pyproject.toml, else the defaults."""
    target = loaded.target
    if isinstance(target, type):
        every = target.options()
        own = [vars(cls) for cls in target.__mro__ if issubclass(cls, App) and cls is not App]
        explicit = {key: value for key, value in every.items() if any(key in names for names in own)}
        if "health_check_config" in every:
            explicit["health_check_config"] = every["health_check_config"]
        defaults: Mapping[str, object] = every
    else:
        explicit, defaults = target.options, FUNCTION_DEFAULTS
        explicit = {key: value for key, value in explicit.items() if (key, value) != ("kind", "virtualenv")}
    options = {**defaults, **reference.options, **explicit, **forced}
    owner = loaded.symbol
    kind = _kind(options, owner)
    refuse_local_requirements(options.get("requirements"), owner)
    options["python_version"] = python_version(options, code=True, owner=owner)
    return options, kind


def _kind(options: Mapping[str, object], owner: str) -> str:
    try:
        return check_kind({key: value for key, value in options.items() if key in Options.__annotations__}, owner)
    except ValueError as error:
        raise DeployError(str(error)) from error


def _metadata(loaded: LoadedApp) -> dict[str, object]:
    # FastAPI logs the same text that it raises.
    fastapi_log = logging.getLogger("fastapi")
    disabled, fastapi_log.disabled = fastapi_log.disabled, True
    try:
        return loaded.target.build_metadata()
    except Exception as error:
        text = str(error)
        if "python-multipart" in text:
            text = (
                "it takes form data, and python-multipart is not installed here, where the app is described: "
                "pip install python-multipart (a runner gets it by the app's requirements)"
            )
        raise AppFileError(f"{loaded.symbol} in {loaded.path} cannot be described: {text}") from error
    finally:
        fastapi_log.disabled = disabled


def _warn_of_near_misses(loaded: LoadedApp) -> None:
    if isinstance(loaded.target, type):
        for name, option in loaded.target.near_misses().items():
            logging.getLogger(__name__).warning(
                "%s.%s is not an option and has no effect: did you mean %r?", loaded.symbol, name, option
            )


class _Packer:
    """Packs an app's code. It does so once for its callable, and once for a setup function."""

    def __init__(
        self, loaded: LoadedApp, options: Mapping[str, object], kind: str, limit_max_requests: int | None
    ) -> None:
        named = _names(options.get("local_python_modules"))
        self._loaded = loaded
        self._named = named
        self._limit_max_requests = limit_max_requests
        self._modules: list[str | ModuleType] = [loaded.module, *loaded.packages, *named]
        self._app_dir: str | None = None
        context = loaded.path.resolve().parent
        if options.get("app_files"):
            context = context_dir(loaded.path, _text(options.get("app_files_context_dir")))
            self._app_dir = app_dir_in(loaded.path, context)
        self._root, self._context = relative_to(loaded.root, context), relative_to(context, loaded.root)
        sends_all = self._app_dir is not None or kind == "container"
        self._alone = None if sends_all else loaded.root
        for module in named:
            imported(module)
        self.sources = collect(loaded, named)
        self._python = str(options["python_version"])
        _warn_of_large_files(self.sources)

    def function(self, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> Code:
        from fal.app.targets import AppTarget, FunctionTarget, ServedFunction

        target = self._loaded.target
        if isinstance(target, type):
            return self._code(AppTarget(target, self._limit_max_requests), "app")
        if target.serves:
            return self._code(ServedFunction(target.raw_func), "served")
        call = dumped((arguments, dict(keywords)), "the arguments")
        return self._code(FunctionTarget(target.raw_func, arguments, keywords), "function", call)

    def setup(self, function: object) -> Code:
        return self._code(function, "setup")

    def _code(self, target: object, kind: str, call: bytes | None = None) -> Code:
        by_value: Pickled | SerializationError
        try:
            by_value = pickled(
                target,
                self._modules,
                refuse_modules_in=self._alone,
                more=self.sources.modules(self._named),
                loggers=self._loaded.loggers,
            )
        except SerializationError as error:
            by_value = error
        here = is_this_python(self._python)
        if not here:
            by_value = _not_by_value(self._loaded.symbol, self._python)
        bundle = pack(
            self.sources,
            symbol=self._loaded.symbol,
            kind=kind,
            file=self._loaded.path.name,
            root=self._root,
            context=self._context,
            app_dir=self._app_dir,
            limit_max_requests=self._limit_max_requests,
            call=call,
            payload=by_value.payload if isinstance(by_value, Pickled) else None,
            same_python=here,
        )
        return Code(
            bundle=bundle,
            by_value=by_value,
            app_dir=self._app_dir,
            files=tuple(self.sources.files),
            paths=self.sources.paths,
        )


def _not_by_value(symbol: str, python: str) -> SerializationError:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return SerializationError(
        f"{symbol} asks for Python {python}, but this is {here}, and this controller takes pickles alone, which only "
        f"the version that made them can read: deploy with Python {python}, or set python_version to {here!r}"
    )


def _warn_of_large_files(sources: Sources) -> None:
    for path in sources.left_out:
        logging.getLogger(__name__).warning(
            "%s (%.0f MiB) does not go along: at most %d MiB of files beside modules do. Name it in app_files, or "
            "fetch it in setup()",
            path,
            path.stat().st_size / 1024**2,
            MAX_DATA_BYTES // 1024**2,
        )


def _files(options: Mapping[str, object], kind: str, anchor: Path | None, app_path: Path | None) -> tuple[AppFile, ...]:
    """Return the files to send with an app. A container's are those that its Dockerfile copies."""
    if kind == "container":
        image = options.get("image")
        described = image.to_dict() if isinstance(image, ContainerImage) else image
        table = described if isinstance(described, Mapping) else {}
        names, ignore = _names(table.get("docker_files_list")), _names(table.get("docker_ignore"))
        context = Path(str(table.get("docker_context_dir") or Path.cwd())).resolve()
        return tuple(collect_files(names, context, ignore=ignore)) if names else ()
    names = _names(options.get("app_files"))
    if not names:
        return ()
    context = context_dir(anchor, _text(options.get("app_files_context_dir")))
    ignore = _names(options.get("app_files_ignore"))
    return tuple(collect_files(names, context, ignore=ignore, leave_out=app_path))


def _names(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
