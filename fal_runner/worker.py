"""The program inside a runner: it loads the app in the app's own environment and calls it.

Run by path with the environment's interpreter (Python 3.8 or newer), it uses the standard library and whatever module
loads the app's pickle. `worker.py JOB_FD RESULT_FD`: the job comes as JSON on one inherited pipe, and what the callable
returned or raised goes back on the other; standard output and error are the app's alone.
"""

# ruff: noqa: ANN401, BLE001, S104, PTH118, PTH120, PTH123, SIM115, UP006, UP035, UP045

from __future__ import annotations

import sys

if sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    sys.path.pop(0)  # this file's directory: its neighbours are not for the app to import

import asyncio
import functools
import importlib
import importlib.abc
import importlib.util
import inspect
import json
import os
import socket
import traceback
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple

_ANY_ADDRESS = (None, "", "0.0.0.0", "::")


class Binding:
    """Where the app really listens: on loopback only, and on the ports that this runner was given.

    A published app listens on every address, where anybody on the network could call a private app past the gateway;
    and its port is the same in each of its runners. So a listening TCP socket's "any address" becomes `host`, and a
    port that the code asks for becomes the runner's own. Reached are sockets made in Python, asyncio's and uvloop's
    servers, also in forked children; not servers that bind in C (gRPC) nor other programs that the app starts.

    Args:
        host: the address instead of "any".
        ports: the port that the code names -> the port that it gets.
    """

    def __init__(self, host: str, ports: Dict[int, int]) -> None:
        self._host = host
        self._ports = ports

    def install(self) -> None:
        """From now on, and in uvloop as soon as it is imported."""
        self._patch_sockets()
        self._patch_loop(asyncio.BaseEventLoop)
        sys.meta_path.insert(0, _AfterImport("uvloop", lambda module: self._patch_loop(module.Loop)))

    def _patch_sockets(self) -> None:
        plain = socket.socket.bind

        @functools.wraps(plain)
        def bind(sock: socket.socket, address: Any) -> None:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM and address[1]:
                address = self._moved(sock, address)
            plain(sock, address)

        socket.socket.bind = bind  # type: ignore[method-assign, assignment]

    def _moved(self, sock: socket.socket, address: Tuple[Any, ...]) -> Tuple[Any, ...]:
        host, port = address[0], self._ports.get(address[1], address[1])
        if sock.family == socket.AF_INET6 and host in ("::", "") and ":" not in self._host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            return ("::ffff:" + self._host, port, *address[2:])
        return (self._host if host in _ANY_ADDRESS else host, port, *address[2:])

    def _patch_loop(self, loop_class: Any) -> None:
        plain = loop_class.create_server

        @functools.wraps(plain)
        async def create_server(loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
            if options.get("sock") is None and port:
                port = self._ports.get(port, port)
                host = self._host if host is None or (isinstance(host, str) and host in _ANY_ADDRESS) else host
            return await plain(loop, factory, host, port, **options)

        loop_class.create_server = create_server


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls back when one module was imported, once."""

    def __init__(self, name: str, callback: Callable[[Any], None]) -> None:
        self._name = name
        self._callback = callback

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Find it as if this finder were not there, and have it call back after it ran."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            self._callback(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def neighbour(name: str) -> Any:
    """A file beside this one, as a module that the app's imports do not meet."""
    spec = importlib.util.spec_from_file_location("_fal_" + name, os.path.join(os.path.dirname(__file__), name + ".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(source: Dict[str, str]) -> Any:
    """Load a pickled object with the module that wrote it."""
    method = importlib.import_module(source["method"])
    with open(source["path"], "rb") as file:
        return method.loads(file.read())


def resolve(entrypoint: str) -> Any:
    """The object that "module:attribute.attribute" names."""
    module, _, attributes = entrypoint.partition(":")
    found = importlib.import_module(module)
    for name in attributes.split("."):
        found = getattr(found, name)
    return found


def accepted(function: Any, offered: Dict[str, int]) -> Dict[str, int]:
    """Those of the keyword arguments that the callable takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return offered
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    return {name: value for name, value in offered.items() if name in names}


async def _await(awaitable: Any) -> Any:
    return await awaitable


def call(job: Dict[str, Any]) -> Any:
    """Load what the job names, call it on this, the main, thread, and wait for what it returns.

    The main thread is where a callable marked for it must run, and the others may: signals reach their handlers there.
    """
    function = load(job["function"]) if job.get("function") else resolve(job["entrypoint"])
    arguments: List[Any] = []
    if job.get("setup"):
        prepared = load(job["setup"])()
        arguments.append(asyncio.run(_await(prepared)) if inspect.isawaitable(prepared) else prepared)
    offered = {"exposed_port": job.get("port"), "exposed_metrics_port": job.get("metrics_port")}
    ports = accepted(function, {name: port for name, port in offered.items() if port})
    result = function(*arguments, **ports)
    return asyncio.run(_await(result)) if inspect.isawaitable(result) else result


def dumped(method: str, value: Any) -> bytes:
    """The object as bytes; an exception that cannot be serialised travels as a RuntimeError with its text.

    Raises:
        Exception: a value that is no exception cannot be serialised.
    """
    module = importlib.import_module(method)
    try:
        return bytes(module.dumps(value))
    except Exception:
        if not isinstance(value, BaseException):
            raise
        return bytes(module.dumps(RuntimeError(f"{type(value).__name__}: {value}")))


def outcome(method: str, error: Optional[BaseException]) -> Dict[str, Any]:
    """The head of a result: its method and, for an exception, what it was in words."""
    if error is None:
        return {"method": method, "raised": False}
    return {
        "method": method,
        "raised": True,
        "traceback": "".join(traceback.format_exception(type(error), error, own_part(error))),
        "type": type(error).__name__,
        "message": str(error),
    }


def own_part(error: BaseException) -> Any:
    """The traceback from where the app's own code begins."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None and step.tb_frame.f_code.co_filename == __file__:
        step = step.tb_next
    return step


def send(pipe: BinaryIO, head: Dict[str, Any], body: bytes) -> None:
    """A result on its way: a line of JSON with the length of the bytes after it, then the bytes."""
    pipe.write(json.dumps(dict(head, length=len(body))).encode() + b"\n" + body)
    pipe.flush()


def run(job: Dict[str, Any], results: BinaryIO) -> int:
    """Do the job; returns the exit code."""
    method = job["method"]
    try:
        value = call(job)
        # What serves returns nothing when it stops; but who asks a class for its description gives the port as well.
        if value is not None or not job.get("port"):
            send(results, outcome(method, None), dumped(method, value))
    except SystemExit:
        raise
    except BaseException as error:
        head = outcome(method, error)
        sys.stdout.flush()
        sys.stderr.write(head["traceback"])
        sys.stderr.flush()
        send(results, head, dumped(method, error))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def main() -> None:
    """Read the job, then do it."""
    with open(int(sys.argv[1]), "rb") as pipe:
        text = pipe.read()
    if not text:
        sys.exit("fal: the shim ended before it gave this worker its job")
    job = json.loads(text)
    os.set_inheritable(int(sys.argv[2]), False)
    results = open(int(sys.argv[2]), "wb")
    sys.argv[:] = [job["name"]]
    for directory in job["paths"]:
        sys.path.insert(0, directory)
    ports = [(job.get("app_port"), job.get("port")), (job.get("app_metrics_port"), job.get("metrics_port"))]
    if job.get("port"):
        streams = neighbour("request_output").RequestStreams(job["mark"])
        streams.install()
        sys.meta_path.insert(0, _AfterImport("uvicorn.config", streams.tag))
        Binding(job["bind_host"], {asked: given for asked, given in ports if asked and given}).install()
    sys.exit(run(job, results))


if __name__ == "__main__":
    main()
