"""The program inside a runner. It loads the app in the app's own environment and calls it.

The environment's interpreter (Python 3.8 or newer) runs it by path; it uses the standard library and the module that
loads the app's pickle. `worker.py JOB_FD RESULT_FD [IMPORTS]`: the job comes as a line of JSON on one inherited pipe,
and messages go back on the other; standard output and error belong to the app alone. With IMPORTS it is started before
there is a job (see prewarm).
"""

# ruff: noqa: ANN401, BLE001, S104, PTH118, PTH120, PTH123, SIM115, UP006, UP035, UP045

from __future__ import annotations

import sys

if sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    sys.path.pop(0)  # this file's directory: the app must not import this file's siblings

import asyncio
import faulthandler
import functools
import importlib
import importlib.abc
import importlib.util
import inspect
import json
import logging
import marshal
import os
import socket
import threading
import traceback
import types
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, Tuple

SOURCE_METHOD = "fal_source"
UNNAMED_METRICS_PORT = 9090
# The callers of the app: their frames before the app's own are irrelevant to an error.
_STARTING = frozenset({"fal", "asyncio", "contextlib", "importlib", "uvloop"})
_ANY_ADDRESS = (None, "", "0.0.0.0", "::")


class Binding:
    """Makes the app listen only on loopback and its runner's ports.

    A published app listens on every address, where anybody on the network could call a private app past the gateway,
    and on the same port in each of its runners. So the "any address" of a listening TCP socket becomes `host`, and a
    port in the code becomes the runner's own. This covers sockets made in Python and the servers of asyncio and uvloop,
    in forked children too, but not servers that bind in C (gRPC), nor other programs that the app starts.

    Args:
        host: replaces "any address".
        ports: the port in the code -> the actual port.
        listening: called with each port that is listened on.
        gates: the ports with a gate, if an event loop's servers listen on them -> makes the gate, or None if there can
            be none. It is called before the port is listened on.
        network: opens the app's port to the controller's machine, too, if it has a gate; None without such a network.
    """

    def __init__(
        self,
        host: str,
        ports: Dict[int, int],
        listening: Callable[[int], None],
        gates: Mapping[int, Callable[[], Any]] = types.MappingProxyType({}),
        network: Optional[NetworkPort] = None,
    ) -> None:
        self._host = host
        self._ports = ports
        self._listening = listening
        self._makers = dict(gates)
        self._gates: Dict[int, Any] = {}
        self._network = network

    def install(self) -> None:
        """Apply this from now on, and to uvloop once it is imported."""
        self._patch_sockets()
        self._patch_loop(asyncio.BaseEventLoop)
        after_import("uvloop", lambda module: self._patch_loop(module.Loop))

    def _patch_sockets(self) -> None:
        plain, plain_listen = socket.socket.bind, socket.socket.listen

        @functools.wraps(plain)
        def bind(sock: socket.socket, address: Any) -> None:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM and address[1]:
                address = self._moved(sock, address)
            plain(sock, address)

        @functools.wraps(plain_listen)
        def listen(sock: socket.socket, *backlog: int) -> None:
            plain_listen(sock, *backlog)
            for port in _ports_of([sock]):
                if port not in self._gates:
                    self._makers.pop(port, None)  # code that accepts connections here does not know the gate
            self._report([sock])

        socket.socket.bind = bind  # type: ignore[method-assign, assignment]
        socket.socket.listen = listen  # type: ignore[method-assign, assignment]

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
            given = options.get("sock")
            opened = None
            for listened in [port] if given is None else _ports_of([given]):
                if not options.get("ssl"):
                    within, factory = factory, self._guarded(listened, factory)
                    if within is not factory and self._network is not None and listened == self._network.port:
                        opened = self._network
                        await opened.open(plain, loop, self._gates[listened].guard_network(within))
            server = await plain(loop, factory, host, port, **options)
            if opened is not None:
                opened.follow(server)
            if server.is_serving():
                self._report(server.sockets)
            return server

        loop_class.create_server = create_server

    def _guarded(self, port: int, factory: Any) -> Any:
        if port in self._makers:
            gate = self._makers.pop(port)()
            if gate is not None:
                self._gates[port] = gate
        return self._gates[port].guard(factory) if port in self._gates else factory

    def _report(self, sockets: Any) -> None:
        for port in _ports_of(sockets):
            self._listening(port)


class NetworkPort:
    """The app's port at the address of a trusted network. It leads to the server that listens on the port here.

    Args:
        host: the address.
        port: the port, which is the same in both places.
        note: is told whether it is open.
    """

    def __init__(self, host: str, port: int, note: Callable[[bool], None]) -> None:
        self.port = port
        self._host = host
        self._note = note
        self._loop: Any = None
        self._socket: Optional[socket.socket] = None
        self._factory: Any = None
        self._server: Any = None

    async def open(self, create_server: Any, loop: Any, factory: Any) -> None:
        """Listen, unless another program has the port there. The controller then comes by the node's door."""
        self._factory, self._server = factory, None
        if self._socket is not None and self._loop is loop:
            return
        if self._socket is not None:
            self._socket.close()  # of a loop that ended
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self.port))
            await create_server(loop, self._enter, sock=listening, backlog=2048)
        except OSError:
            listening.close()
            self._loop = self._socket = None
        else:
            self._loop, self._socket = loop, listening
        self._note(self._socket is not None)

    def follow(self, server: Any) -> None:
        """Admit nobody once this server does not."""
        self._server = server

    def _enter(self) -> Any:
        serves = self._server is None or self._server.is_serving()
        return self._factory() if serves else _Refused()


class _Refused(asyncio.Protocol):
    """A connection to a server that has closed."""

    def connection_made(self, transport: Any) -> None:
        """End it."""
        transport.abort()


def _ports_of(sockets: Any) -> List[int]:
    """Return the ports of the internet sockets."""
    return [sock.getsockname()[1] for sock in sockets if sock.family in (socket.AF_INET, socket.AF_INET6)]


def after_import(name: str, callback: Callable[[Any], None]) -> None:
    """Call back with a module once it is imported. If it already is, the call comes at once."""
    if name in sys.modules:
        callback(sys.modules[name])
    else:
        sys.meta_path.insert(0, _AfterImport(name, callback))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls back once, when one module was imported."""

    def __init__(self, name: str, callback: Callable[[Any], None]) -> None:
        self._name = name
        self._callback = callback

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Find the module without this finder; call back after it has run."""
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


def sibling(name: str) -> Any:
    """Load a file beside this one as a module. No import of the app finds its name."""
    spec = importlib.util.spec_from_file_location("_fal_" + name, os.path.join(os.path.dirname(__file__), name + ".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(source: Dict[str, str]) -> Any:
    """Load an object with the module that wrote it. A bundle of sources brings its own loader."""
    if source["method"] == SOURCE_METHOD:
        import zipfile  # imported here, because every start would wait for it

        with zipfile.ZipFile(source["path"]) as bundle:
            names = bundle.namelist()
            found = bundle.read("bootstrap.pyc") if "bootstrap.pyc" in names else b""
            if found[:4] == importlib.util.MAGIC_NUMBER:
                code = marshal.loads(found[16:])  # noqa: S302 - as much the deployer's code as the text beside it
            else:
                code = compile(bundle.read("bootstrap.py"), "<fal_bootstrap>", "exec")
        bootstrap = types.ModuleType("fal_bootstrap")
        exec(code, bootstrap.__dict__)  # noqa: S102
        return bootstrap.open_bundle(source["path"])
    method = importlib.import_module(source["method"])
    with open(source["path"], "rb") as file:
        return method.loads(file.read())


def resolve(entrypoint: str) -> Any:
    """Return the object that "module:attribute.attribute" names."""
    module, _, attributes = entrypoint.partition(":")
    found = importlib.import_module(module)
    for name in attributes.split("."):
        found = getattr(found, name)
    return found


def accepted(function: Any, offered: Dict[str, int]) -> Dict[str, int]:
    """Return the keyword arguments that the callable accepts."""
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
    """Load and call the job's callable, and wait for its result. It runs on the main thread.

    A callable that is marked for the main thread must run there, and any other may: signals reach their handlers there.
    A callable with a faster event loop than asyncio's runs its coroutine itself.
    """
    function = load(job["function"]) if job.get("function") else resolve(job["entrypoint"])
    arguments: List[Any] = []
    if job.get("setup"):
        prepared = load(job["setup"])()
        arguments.append(asyncio.run(_await(prepared)) if inspect.isawaitable(prepared) else prepared)
    offered = {"exposed_port": job.get("port"), "exposed_metrics_port": job.get("metrics_port")}
    ports = accepted(function, {name: port for name, port in offered.items() if port})
    result = function(*arguments, **ports)
    run = getattr(function, "run_coroutine", asyncio.run)
    return run(_await(result)) if inspect.isawaitable(result) else result


def dumped(method: str, value: Any) -> bytes:
    """Serialize an object. An exception that cannot be serialized becomes a RuntimeError with its text.

    Raises:
        Exception: the value cannot be serialized.
    """
    module = importlib.import_module(method)
    try:
        return bytes(module.dumps(value))
    except Exception:
        if not isinstance(value, BaseException):
            raise
        return bytes(module.dumps(RuntimeError(f"{type(value).__name__}: {value}")))


def outcome(method: str, error: Optional[BaseException]) -> Dict[str, Any]:
    """Return the head of a result. It has the method and, for an exception, its type, message and traceback."""
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
    """Return the traceback from the app's first frame on. It is complete if no frame is the app's."""
    step = error.__traceback__
    while step is not None and not is_apps(step.tb_frame):
        step = step.tb_next
    return step or error.__traceback__


def is_apps(frame: types.FrameType) -> bool:
    """Return whether a frame belongs to the app. Other frames belong to the code that starts it."""
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return frame.f_code.co_filename != __file__ and package not in _STARTING


class ResultChannel:
    """The pipe to the shim. It carries lines of JSON; the bytes of a result follow their line."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._pipe = open(fd, "wb")
        self._lock = threading.Lock()
        self._reported: List[int] = []

    def send(self, head: Dict[str, Any], body: bytes = b"") -> None:
        """Send a line, and the bytes that belong to it."""
        with self._lock:
            self._pipe.write(json.dumps(head).encode() + b"\n" + body)
            self._pipe.flush()

    def listening(self, port: int) -> None:
        """Report once that a port is open."""
        if port not in self._reported:
            self._reported.append(port)
            self.send({"listening": port})


def run(job: Dict[str, Any], channel: ResultChannel, streams: Any) -> int:
    """Run the job; return the exit code."""
    method = job["method"]
    if method == SOURCE_METHOD:  # this method cannot serialize results
        method = "cloudpickle" if importlib.util.find_spec("cloudpickle") else "pickle"
    try:
        value = call(job)
        # A server returns nothing when it stops; but a class asked for its description has a port, too.
        if value is not None or not job.get("port"):
            body = dumped(method, value)
            channel.send(dict(outcome(method, None), length=len(body)), body)
    except SystemExit as end:
        if isinstance(end.code, str):  # a message: Python prints it, and exits with 1
            channel.send({"cause": end.code})
        raise
    except BaseException as error:
        head = outcome(method, error)
        sys.stdout.flush()
        with streams.one_entry(logging.ERROR):
            sys.stderr.write(head["traceback"])
        sys.stderr.flush()
        body = dumped(method, error)
        channel.send(dict(head, length=len(body)), body)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def wait_for_job(pipe: BinaryIO, channel: ResultChannel, imports: str, streams: Any) -> Dict[str, Any]:
    """Import the listed modules until a job comes, then become its process."""

    def postpone(module: str) -> None:
        channel.send({"until": module})

    prewarmed = sibling("prewarm").PrewarmedProcess(imports, postpone)
    take_tag = sibling("process_tag").take_tag
    streams.install()  # imported modules may keep references to them
    inspect.getsourcelines(load)  # warms up source reading, which FastAPI does at an endpoint's first request
    message: Dict[str, Any] = {"again": 0}
    while "again" in message:
        if not prewarmed.import_all():
            sys.exit(0)
        channel.send({"ahead": message["again"]})
        text = pipe.readline()
        if not text:
            sys.exit(0)  # no runner ever came
        message = json.loads(text)
    try:
        take_tag(message["environ"]["FAL_RUNNER_MARK"])  # fails if an import removed it
        why = prewarmed.incompatibility(message)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    channel.send({"took": not why, "why": why})
    if why:
        prewarmed.restart_cold(message, channel.fd)
    prewarmed.adopt_job(message)
    return message


def gates_of(job: Dict[str, Any], channel: ResultChannel, streams: Any) -> Dict[int, Callable[[], Any]]:
    """Return what makes the gates of the app's port and metrics. A maker returns None if there can be no gate."""
    worker = os.getpid()
    one_at_a_time = threading.Lock()

    def is_own(*ends: Any) -> bool:
        if os.getpid() != worker:
            return False  # a fork would take others' answers
        with one_at_a_time:
            channel.send({"visitor": ends})
            return os.read(job["answers"], 1) == b"y"

    def make(name: str, key: str) -> Any:
        if not key or not streams.note_gate(name):
            return None
        os.set_inheritable(job["answers"], False)
        return sibling("gate").Gate(key, is_own)

    keys = {"port": job.get("gate", ""), "metrics_port": job.get("metrics_gate", "")}
    return {job[name]: functools.partial(make, name, key) for name, key in keys.items() if job.get(name)}


def main() -> None:
    """Read the job, then do it."""
    job_fd, result_fd = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(result_fd, False)
    channel = ResultChannel(result_fd)
    streams = sibling("request_output").RequestStreams()
    with open(job_fd, "rb") as pipe:
        os.set_inheritable(job_fd, False)
        if len(sys.argv) > 3:
            job = wait_for_job(pipe, channel, sys.argv[3], streams)
        else:
            text = pipe.readline()
            if not text:
                sys.exit("fal: the shim ended before it gave this worker its job")
            job = json.loads(text)
    sys.argv[:] = [job["name"]]
    environment = list(sys.path)
    for directory in job["paths"]:
        sys.path.insert(0, directory)
    ports = [(job.get("app_port"), job.get("port")), (job.get("app_metrics_port"), job.get("metrics_port"))]
    # Older published clients serve metrics on one port without naming it: a runner gets any free one instead, because
    # the second runner on this machine would end at once otherwise.
    moved = {UNNAMED_METRICS_PORT: 0, **{wanted: given for wanted, given in ports if wanted and given}}

    def remember() -> None:
        if job.get("imports"):
            channel.send({"imported": sibling("prewarm").imported(environment)})

    def listening(port: int) -> None:
        if port in (job["port"], job.get("metrics_port")):
            channel.listening(port)
        if port == job["port"]:
            remember()

    faulthandler.enable(2)  # a crash beneath Python reports its position; sys.stderr is not a file then
    streams.install()
    streams.begin(job["mark"], remember)
    if job.get("port"):
        streams.count_in(job.get("requests", -1))
        after_import("uvicorn.config", streams.tag)
        after_import("fastapi.routing", streams.beginnings.watch)
        host = job.get("network_host")
        network = NetworkPort(host, job["port"], streams.note_network) if host else None
        Binding(job["bind_host"], moved, listening, gates_of(job, channel, streams), network).install()
    try:
        code = run(job, channel, streams)
    finally:
        remember()
    sys.exit(code)


if __name__ == "__main__":
    main()
