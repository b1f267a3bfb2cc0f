"""Functions that run or are served in their own environment, and `cached`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, Unpack, cast

from fal.app.endpoints import route_of
from fal.app.options import FunctionOptions, Options, check_kind, check_options

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fal.app.spawning import SpawnInfo

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Function(Generic[_P, _R]):
    """A function and the environment that it runs in. Calling it runs it in a runner; `func` runs it here.

    Attributes:
        raw_func: the plain function.
        options: the given options by name; `fal.app.options.FUNCTION_DEFAULTS` has the others' defaults.
        app_name: the name to deploy it under.
    """

    __name__: str

    def __init__(self, raw_func: Callable[_P, _R], options: dict[str, object]) -> None:
        self.raw_func = raw_func
        self.options = options
        self.app_name = raw_func.__name__
        self.app_auth: str | None = None
        functools.update_wrapper(self, raw_func)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Run the function in a runner and return its result. Its log lines go to standard error.

        See `submit` for what is sent. If the function raises an exception whose class is in its own file, or is
        imported in this program, that exception is raised here, with the runner's traceback in its notes.

        Raises:
            UserFunctionError: the function raised another exception.
            DeployError: it could not be prepared, built or run, or its own file calls it during its import.
        """
        from fal.app.spawning import call

        return cast("_R", call(self, self.raw_func.__qualname__, args, kwargs))

    def __repr__(self) -> str:
        return f"<fal.function {self.raw_func.__module__}.{self.raw_func.__qualname__}>"

    @property
    def func(self) -> Callable[_P, _R]:
        """The plain function, which runs in this process."""
        return self.raw_func

    @property
    def serves(self) -> bool:
        """Whether the function is served over HTTP instead of called once."""
        return bool(self.options.get("serve"))

    def on(self, **options: Unpack[Options]) -> Function[_P, _R]:
        """Return the same function with other options.

        Raises:
            ValueError: an option is unknown, or its value has the wrong kind.
        """
        return Function(self.raw_func, _checked({**self.options, **options}, self.raw_func.__name__))

    def submit(self, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """Run the function in a runner, without waiting for it.

        The function's file is sent; if this script is that file, it needs `if __name__ == "__main__":`. A result is
        plain data, as with `fal run`.

        Returns:
            A future of its result or exception.
        """
        from fal.app.spawning import submit

        return cast("Future[_R]", submit(self, self.raw_func.__qualname__, args, kwargs))

    def spawn(self, *args: _P.args, **kwargs: _P.kwargs) -> SpawnInfo:
        """Run the function like `submit`, and return its log lines. If it is served, its address is there, too.

        `stream.cancel()` ends it.
        """
        from fal.app.spawning import spawn

        return spawn(self, self.raw_func.__qualname__, args, kwargs)

    def map(self, *arguments: Iterable[object]) -> Iterator[_R]:
        """Run the function for all items at once. Yield the results in the order of the items.

        Args:
            arguments: one iterable for each argument of the function, as for the built-in `map`.
        """
        submit = cast("Callable[..., Future[_R]]", self.submit)
        waiting = [submit(*each) for each in zip(*arguments, strict=False)]
        return (future.result() for future in waiting)

    def build_metadata(self) -> dict[str, object]:
        """Return the metadata of the revision. It is the OpenAPI description, if the function is served."""
        given = self.options.get("metadata")
        metadata: dict[str, object] = dict(given) if isinstance(given, dict) else {}
        if self.serves:
            from fal.app.targets import ServedFunction

            metadata["openapi"] = ServedFunction(self.raw_func).openapi()
        return metadata

    def run_local(
        self,
        *args: object,
        exposed_port: int | None = None,
        exposed_metrics_port: int | None = None,
        **kwargs: object,
    ) -> object | Coroutine[None, None, None]:
        """Call the function here, or serve it here until Ctrl-C.

        In a running event loop, return the coroutine if it is async.

        Args:
            args, kwargs: the arguments, if it is not served.
            exposed_port: the port to serve at; 8080 by default.
            exposed_metrics_port: the port of /metrics; 9090 by default.
        """
        if not self.serves:
            result = cast("Callable[..., object]", self.raw_func)(*args, **kwargs)
            if inspect.iscoroutine(result):
                from fal.app.targets import run_unless_in_a_loop

                return run_unless_in_a_loop(result)
            return result
        from fal.app.targets import ServedFunction, run_here

        served = ServedFunction(self.raw_func)
        return run_here(served, exposed_port=exposed_port, exposed_metrics_port=exposed_metrics_port)


def function(
    kind: str = "virtualenv", *, force_env_build: bool = False, **options: Unpack[FunctionOptions]
) -> Callable[[Callable[_P, _R]], Function[_P, _R]]:
    """Let `fal run` run and `fal deploy` deploy the decorated function.

        @fal.function(requirements=["pyjokes"], machine_type="S", serve=True)
        def joke() -> str: ...

    Args:
        kind: "virtualenv", "container" (which needs `image`) or "conda".
        force_env_build: build the environment again even if it was built before.
        options: the attributes of `fal.App`, and `serve=True` to serve the function at POST /; otherwise it is called
            once and its result returned. The machine type is "XS" and keep_alive 10 seconds by default.

    Raises:
        ValueError: an option is unknown, or its value has the wrong kind.
    """
    given: dict[str, object] = {"kind": kind, **options}
    if force_env_build:
        given["force"] = True

    def wrap(func: Callable[_P, _R]) -> Function[_P, _R]:
        if route_of(func) is not None:
            raise ValueError(f"{func.__name__} is an endpoint: endpoints are methods of a fal.App")
        return Function(func, _checked(given, func.__name__))

    return wrap


def _checked(options: dict[str, object], name: str) -> dict[str, object]:
    owner = f"function {name}"
    check_options(options, owner)
    check_kind(options, owner)
    return {key: value for key, value in options.items() if value is not None}


def cached(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """Cache the function's results by its arguments, for the process's life."""
    kept = functools.cache(func)

    @functools.wraps(func)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return kept(*args, **kwargs)  # type: ignore[arg-type]  # cache() asks for hashable arguments at run time

    return call
