"""The life of a runner in its shim. It covers start, readiness, result, stop, kill, and the end of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from functools import partial
from pathlib import Path

from fal_grpc.v1 import log_pb2, run_pb2, shim_pb2
from fal_runner.isolation.container import NOTE_VARIABLE, SHARED_NAME, read_note
from fal_runner.isolation.container import kill as kill_container
from fal_runner.isolation.mounts import JOIN_VARIABLE
from fal_runner.isolation.sandbox import (
    APP,
    PROCESSES_VARIABLE,
    SANDBOX_VARIABLE,
    SHARED,
    TEMPORARY,
    has_sandbox,
    isolation_of,
    seen_in_sandbox,
)
from fal_runner.log.capture import capture
from fal_runner.log.frames import new_mark
from fal_runner.log.journal import Journal
from fal_runner.log.lines import DEFAULT_MAX_LINE_BYTES
from fal_runner.log.redaction import Redactor
from fal_runner.log.spool import DEFAULT_MAX_BYTES
from fal_runner.process.gpus import foreign_users
from fal_runner.process.groups import GROUPS_VARIABLE
from fal_runner.process.ports import PORTS_VARIABLE, Reservation, connected_inode, holds, owners_inode, reserve
from fal_runner.process.proc import PROFILER_VARIABLE, WORKER_VARIABLE, boot_id, process_info, tag_of
from fal_runner.process.subreaper import Child, Subreaper
from fal_runner.shim.disk import DiskBound
from fal_runner.shim.memory import MemoryBound
from fal_runner.shim.processes import ProcessBound
from fal_runner.shim.worker_process import MAX_RESULT_BYTES, WorkerMessage, WorkerProcess, note_imports, place_of
from fal_runner.worker.process_tag import TAG_VARIABLE

State = shim_pb2.ShimStatus
Reason = shim_pb2.WorkerExited
Access = shim_pb2.WorkerReady
_EAGER_SECONDS = 3.0
_METRICS_SECONDS = 5.0  # between tries of a port of metrics that nothing has opened
_OPEN = ", open to every program of this machine"
_KILL_SECONDS = 2.0  # how long a killed program may take to end before the process that stands for it is killed, too
_LEFTOVER_SECONDS = 2.0  # how long to wait for output once every process that could write it is dead
_LONGEST_CAUSE = 300
# Signals of faults beneath Python, where Python then reports its position.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


class Supervisor:
    """One worker and all processes that it starts.

    Args:
        reaper: starts processes.
        directory: the runner's directory, which contains the spool.
        spec: describes the worker.
    """

    def __init__(self, reaper: Subreaper, directory: Path, spec: shim_pb2.RunnerSpec) -> None:
        self.spec = spec
        self._directory = directory
        self.state: State.State.ValueType = State.STATE_WAITING
        self.events: list[shim_pb2.ShimEvent] = []
        limits = spec.spool_limits
        self.journal = Journal(directory / "log", limits.max_bytes or DEFAULT_MAX_BYTES)
        self.identity = shim_pb2.ProcessIdentity()
        self._max_line_bytes = limits.max_line_bytes or DEFAULT_MAX_LINE_BYTES
        self._redactor = Redactor(spec.redact)
        self._mark = new_mark()
        self._reaper = reaper
        self._changed = asyncio.Event()
        self._listening = asyncio.Event()
        self._listens_on: set[object] = set()
        self._worker: Child | None = None
        self._ports: dict[str, Reservation] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._process: WorkerProcess | None = None
        self._result: asyncio.Task[None] | None = None
        self._output: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._kill_at = float("inf")
        self._reason: Reason.Reason.ValueType = Reason.REASON_EXITED
        self._reason_before_kill = self._reason
        self._crash = ""
        self._cause = ""
        self._asked = False
        container = spec.env.get(NOTE_VARIABLE)
        self._container = Path(container) if container else None
        self._memory = MemoryBound(spec.limits, self._container)
        own = [APP, TEMPORARY] if self._container is None else [SHARED_NAME]
        self._disk = DiskBound(spec.limits, [directory / name for name in own], self._pids, self._container)
        self._crowd = ProcessBound(spec.limits, has_sandbox(spec.room), self._pids)
        self._started = 0.0

    @property
    def env(self) -> dict[str, str]:
        """The environment of all processes in this runner."""
        return {**self.spec.env, TAG_VARIABLE: tag_of(self.spec.token)}

    @property
    def command_env(self) -> dict[str, str]:
        """The environment of commands beside the worker."""
        pid = str(self.identity.pid)
        profiler = Path(sys.executable).with_name("py-spy")
        return {
            **self.env,
            WORKER_VARIABLE: pid,
            PORTS_VARIABLE: json.dumps(self._moved_ports()),
            **({PROFILER_VARIABLE: str(profiler)} if profiler.exists() else {}),
        }

    @property
    def command_place(self) -> dict[str, str]:
        """Variables that make launch.py give commands the worker's view of the machine."""
        sandbox = SHARED if has_sandbox(self.spec.room) else ""
        return {JOIN_VARIABLE: str(self.identity.pid), SANDBOX_VARIABLE: sandbox, **self._bounds}

    @property
    def _bounds(self) -> dict[str, str]:
        """Variables that tell launch.py which control groups to enter first. They also have the number of processes."""
        most = {PROCESSES_VARIABLE: str(self._crowd.most)} if self._crowd.most else {}
        return {GROUPS_VARIABLE: ":".join(self.spec.limits.groups), **most}

    @property
    def terminals(self) -> str:
        """The /dev for the terminals of commands."""
        if self._worker is None or self._reaper.program_of(self._worker) == self._worker.pid:
            return "/dev"  # there is no sandbox, or it is not complete yet
        return f"/proc/{self._worker.pid}/root/dev"

    def _moved_ports(self) -> dict[str, int]:
        """The app's ports and metrics port, by the app's numbers. The values are the actual ones."""
        wanted = {"port": self.spec.app_port, "metrics_port": self.spec.app_metrics_port}
        return {str(wanted[name] or held.port): held.port for name, held in self._ports.items()}

    @property
    def requests_in_flight(self) -> int | None:
        """How many requests the worker is processing. None if it does not count them."""
        return None if self._process is None else self._process.requests_in_flight

    def start(self, prewarmed: WorkerProcess | None = None) -> None:
        """Start the worker.

        Args:
            prewarmed: its process, if it already waits for its job.

        Raises:
            OSError: there is no room for one more process.
            ValueError: the name or value of an environment variable is not valid.
            PortUnavailable: there is no port for it.
        """
        if self.spec.serves_http:
            self._ports["port"] = reserve(self.spec.bind_host)
        if self.spec.serves_metrics:
            self._ports["metrics_port"] = reserve(self.spec.bind_host)
        place = {**place_of(self.spec.room, self._directory), **self._bounds}
        process = prewarmed or WorkerProcess(self._reaper, self.spec.python, self.env, place, self.spec.working_dir)
        self._worker = process.child
        self._process = process
        if prewarmed is not None:
            self._crowd.apply(self._reaper.program_of(process.child))
        self._started = time.monotonic()
        outputs = {process.stdout: log_pb2.LogEntry.SOURCE_STDOUT, process.stderr: log_pb2.LogEntry.SOURCE_STDERR}
        lines = capture(outputs, self.journal, self._redactor, self._max_line_bytes, self._mark, self._note_crash)
        self._output = self._spawn(lines)
        self._tasks.append(self._spawn(process.ask(self._job(process, prewarmed=prewarmed is not None), last=True)))
        self._result = self._spawn(self._listen(process))
        self._tasks.append(self._spawn(self._watch_end(self._worker)))
        found = process_info(self._worker.pid)
        self.identity.CopyFrom(
            shim_pb2.ProcessIdentity(
                pid=self._worker.pid, start_ticks=found.started_ticks if found else 0, boot_id=boot_id()
            )
        )
        self.state = State.STATE_STARTING
        self.journal.note(f"worker started: process {self._worker.pid}")
        level = isolation_of(self.spec.room, container=NOTE_VARIABLE in self.spec.env)
        self.journal.note(f"isolation: {level}")
        self._emit(shim_pb2.ShimEvent(worker_started=shim_pb2.WorkerStarted(worker=self.identity)))
        self._tasks.append(self._spawn(self._become_ready()))
        self._tasks.append(self._spawn(self._memory.follow_kills(self._warn)))
        self._tasks.append(self._spawn(self._crowd.follow(self._warn)))
        end = partial(self._worker.signal, signal.SIGKILL)
        self._tasks.append(self._spawn(self._memory.enforce(end)))
        self._tasks.append(self._spawn(self._disk.enforce(end, self._warn)))
        if self.spec.gpus:
            self._tasks.append(self._spawn(self._name_strangers()))

    def stop(self, grace_seconds: float) -> None:
        """Send SIGTERM to the worker, and SIGKILL to everything after the grace. A second call can only shorten it."""
        if self._worker is None or self.state == State.STATE_EXITED:
            return
        loop = asyncio.get_running_loop()
        if not self._asked:
            self._asked = True
            self._reason = Reason.REASON_STOPPED
            self.state = State.STATE_STOPPING
            self.journal.note(f"asked to stop: SIGTERM sent, {grace_seconds:g} s until SIGKILL")
            self._emit(shim_pb2.ShimEvent(stopping=shim_pb2.WorkerStopping(grace_seconds=grace_seconds)))
            self._worker.signal(signal.SIGTERM)
        if loop.time() + grace_seconds < self._kill_at:
            self._kill_at = loop.time() + grace_seconds
            if self._grace is not None:
                self._grace.cancel()
            self._grace = loop.call_at(self._kill_at, self._end_grace, grace_seconds)

    def kill(self) -> None:
        """Send SIGKILL to everything now."""
        if self._worker is None or self.state == State.STATE_EXITED:
            return
        if self._reason != Reason.REASON_KILLED and not self._worker.exited.done():
            self._reason_before_kill, self._reason = self._reason, Reason.REASON_KILLED
            self.journal.note("killed: SIGKILL sent to all of its processes")
            if not self._asked:
                self._asked = True
                self.state = State.STATE_STOPPING
                self._emit(shim_pb2.ShimEvent(stopping=shim_pb2.WorkerStopping(grace_seconds=0)))
        # The sweep after its end kills all other processes.
        if has_sandbox(self.spec.room):
            self._reaper.kill_program(self._worker)
        elif self._container is not None:
            self._tasks.append(self._spawn(self._kill_in(self._container)))
        else:
            self._worker.signal(signal.SIGKILL)
            return
        asyncio.get_running_loop().call_later(_KILL_SECONDS, self._worker.signal, signal.SIGKILL)

    async def _kill_in(self, container: Path) -> None:
        """Let the engine kill the container's process. One that is already ending keeps its exit code."""
        with contextlib.suppress(OSError, ValueError):  # without engine or note, only the kill that follows remains
            await asyncio.to_thread(lambda: kill_container(read_note(container)))

    async def changed(self) -> None:
        """Wait for the next event."""
        await self._changed.wait()

    async def gone(self) -> None:
        """Wait until no process of the runner is left."""
        while self.state != State.STATE_EXITED:
            await self.changed()

    def event(self, kind: str) -> shim_pb2.ShimEvent | None:
        """Return the event of this kind; None if it has not happened."""
        return next((event for event in self.events if event.WhichOneof("event") == kind), None)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def _emit(self, event: shim_pb2.ShimEvent) -> None:
        event.sequence = len(self.events) + 1
        event.timestamp.FromNanoseconds(time.time_ns())
        self.events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

    def _end_grace(self, grace_seconds: float) -> None:
        if self._worker is not None and not self._worker.exited.done():
            self._reason = Reason.REASON_GRACE_EXCEEDED
            self.journal.note(
                f"still running {grace_seconds:g} s after SIGTERM: SIGKILL sent to all of its processes",
                log_pb2.WARNING,
            )
            self._worker.signal(signal.SIGKILL)

    async def _name_strangers(self) -> None:
        """Report other users of the runner's GPUs. The runner does not cause a shortage there."""
        own = {process.pid for process in self._reaper.living_descendants()}
        for said in await asyncio.to_thread(foreign_users, list(self.spec.gpus), own):
            self._warn(said)

    def _warn(self, message: str) -> None:
        self.journal.note(message, log_pb2.WARNING)

    def _port(self, name: str) -> int:
        return self._ports[name].port if name in self._ports else 0

    def _job(self, process: WorkerProcess, *, prewarmed: bool) -> dict[str, object]:
        """Return the job for the worker. A prewarmed one needs its environment, too."""
        spec = self.spec
        job: dict[str, object] = {
            "name": spec.app_name or "fal",
            "paths": [self._seen(spec.files_dir)] if spec.files_dir else [],
            "method": spec.function.method or "pickle",
            "bind_host": spec.bind_host,
            "network_host": spec.network_host,
            "mark": self._mark,
            "port": self._port("port"),
            "metrics_port": self._port("metrics_port"),
            "app_port": spec.app_port,
            "app_metrics_port": spec.app_metrics_port,
            "imports": spec.imports_file,
            "requests": process.requests_fd,
            "gate": spec.gate_key,
            "metrics_gate": spec.metrics_gate_key,
            "answers": process.answers_fd,
        }
        if prewarmed:
            job["environ"] = self.env
        if spec.WhichOneof("callable") == "function":
            job["function"] = {"path": self._seen(spec.function.path), "method": spec.function.method}
        else:
            job["entrypoint"] = spec.entrypoint
        if spec.HasField("setup_func"):
            job["setup"] = {"path": self._seen(spec.setup_func.path), "method": spec.setup_func.method}
        return job

    def _seen(self, path: str) -> str:
        """Return the worker's path of a file on the machine."""
        return seen_in_sandbox(path, str(self._directory)) if has_sandbox(self.spec.room) else path

    async def _listen(self, process: WorkerProcess) -> None:
        """Process the worker's messages. They say that it listens, and give the result of its callable."""
        try:
            while (message := await process.listen()) is not None:
                if note_imports(message, self.spec.python, self.spec.imports_file):
                    continue
                if "length" in message.head:
                    self._take_result(message)
                elif "listening" in message.head:
                    self._listens_on.add(message.head["listening"])
                    self._listening.set()
                elif "visitor" in message.head:
                    process.answer(yes=await asyncio.to_thread(self._connected, message.head["visitor"]))
                elif "cause" in message.head:
                    self._cause = self._redactor.redact(_first_line(str(message.head["cause"])))
                elif message.head.get("took") is False:
                    self.journal.note(f"started cold, without the modules imported ahead: {message.head.get('why')}")
        finally:
            process.hang_up()

    def _take_result(self, message: WorkerMessage) -> None:
        head = message.head
        if not message.whole:
            cut = len(message.body) >= MAX_RESULT_BYTES
            why = f"{MAX_RESULT_BYTES // 2**20} MiB is the most" if cut else "the worker ended while it sent it"
            self.journal.note(f"the result was cut off: {why}", log_pb2.ERROR)
            return
        raised = bool(head["raised"])
        value = run_pb2.SerializedObject(method=str(head["method"]), definition=message.body, was_it_raised=raised)
        if raised:
            value.stringized_traceback = str(head["traceback"])
            value.exception_type_name = str(head["type"])
            value.exception_message = str(head["message"])
            self._cause = self._redactor.redact(_first_line(f"{head['type']}: {head['message']}"))
        self._emit(shim_pb2.ShimEvent(result=shim_pb2.WorkerResult(return_value=value)))

    async def _become_ready(self) -> None:
        """Wait until this runner has the app's port open. Without a port it is ready at once."""
        port = self._port("port")
        if port:
            await self._port_open(port)
        if self.state != State.STATE_STARTING:
            return
        self.state = State.STATE_READY
        gated = self._process is not None and self._process.gated
        on_network = self._process is not None and self._process.on_network
        metrics_port = self._port("metrics_port")
        access = self._metrics_access() if metrics_port in self._listens_on else Access.METRICS_ACCESS_CLOSED
        if port:
            metrics = (
                f", metrics on {metrics_port}{_OPEN if access == Access.METRICS_ACCESS_OPEN else ''}"
                if metrics_port
                else ""
            )
            reached = "" if gated else _OPEN
            if on_network:
                reached = f", and on {self.spec.network_host} for the controller"
            seconds = f"{time.monotonic() - self._started:.2f}"
            self.journal.note(f"ready after {seconds} s: listens on {port}{reached}{metrics}")
        ready = shim_pb2.WorkerReady(
            port=port, metrics_port=metrics_port, gated=gated, metrics_access=access, on_network=on_network
        )
        self._emit(shim_pb2.ShimEvent(ready=ready))
        if metrics_port and access == Access.METRICS_ACCESS_CLOSED:
            await self._port_open(metrics_port, most_pause=_METRICS_SECONDS)
            access = self._metrics_access()
            if access == Access.METRICS_ACCESS_OPEN:
                self.journal.note(f"metrics on {metrics_port}{_OPEN}")
            self._emit(shim_pb2.ShimEvent(metrics=shim_pb2.WorkerMetrics(metrics_access=access)))

    def _metrics_access(self) -> shim_pb2.WorkerReady.MetricsAccess.ValueType:
        """Return who can connect to the metrics port. A process of this runner listens on it."""
        gated = self._process is not None and self._process.gates_metrics
        return Access.METRICS_ACCESS_GATED if gated else Access.METRICS_ACCESS_OPEN

    async def _port_open(self, port: int, *, most_pause: float = 0.1) -> None:
        """Wait until the worker listens. A child program does not report it, so try the port, too."""
        pause = 0.005
        warned = False
        loop = asyncio.get_running_loop()
        eager_until = loop.time() + _EAGER_SECONDS  # a caller may be waiting for a short start
        while True:
            if await _connects(self.spec.bind_host, port):
                # Only this worker can have the ports that it listens on, and a look into /proc takes milliseconds.
                if port in self._listens_on or self._is_ours(port):
                    return
                if not warned:
                    warned = True
                    self.journal.note(f"port {port} is held by a process that is not this runner's", log_pb2.ERROR)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._listening.wait()
            self._listening.clear()
            pause = min(most_pause if loop.time() > eager_until else 0.01, pause * 1.5)

    def _is_ours(self, port: int) -> bool:
        if NOTE_VARIABLE in self.spec.env:
            return True  # the container's engine may hold the port, which is not a process of this runner
        inode = owners_inode(port)
        if inode is None or holds(self.identity.pid, inode):
            return True
        return self._one_holds(inode)

    def _connected(self, ends: object) -> bool:
        """Return whether a runner's process has the socket with these ends."""
        match ends:
            case [str(host), int(port), str(other_host), int(other_port)]:
                inode = connected_inode((host, port), (other_host, other_port))
                return inode is not None and self._one_holds(inode)
            case _:
                return False

    def _one_holds(self, inode: int) -> bool:
        return any(holds(pid, inode) for pid in self._pids())

    def _pids(self) -> list[int]:
        return [process.pid for process in self._reaper.living_descendants()]

    async def _watch_end(self, worker: Child) -> None:
        """End all other processes of the runner when the worker ends. Only then report that it exited."""
        code = await worker.wait()
        if self._grace is not None:
            self._grace.cancel()
        await self._reaper.sweep()
        readers = [task for task in (self._output, self._result) if task is not None]
        _, late = await asyncio.wait(readers, timeout=_LEFTOVER_SECONDS)
        for task in (*late, *(task for task in self._tasks if task is not asyncio.current_task())):
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for reservation in self._ports.values():
            reservation.release()
        exited = self._exit(code)
        own = {Reason.REASON_EXITED, Reason.REASON_OUT_OF_MEMORY, Reason.REASON_OUT_OF_DISK}
        failed = code != 0 and self._reason in own
        self.journal.note(exited.message, log_pb2.ERROR if failed else log_pb2.INFO)
        self.journal.close()
        self.state = State.STATE_EXITED
        self._emit(shim_pb2.ShimEvent(exited=exited))

    def _note_crash(self, crash: str) -> None:
        self._crash = crash

    def _exit(self, code: int) -> shim_pb2.WorkerExited:
        if self._reason == Reason.REASON_KILLED and code != -signal.SIGKILL:
            self._reason = self._reason_before_kill  # the kill came too late: the worker had ended, or was about to
        itself, killed = self._reason == Reason.REASON_EXITED, self._reason == Reason.REASON_KILLED
        # A lack of memory is known later than the broken connections, for which the runner may be killed meanwhile.
        starved = self._memory.explains(code, itself=itself, killed=killed)
        filled = self._disk.exceeded and code == -signal.SIGKILL
        if code >= 0:
            message = f"worker exited with code {code}"
            if code and self._cause and itself:
                message += f": {self._cause}"
        else:
            name = f" ({signal.Signals(-code).name})" if -code in set(signal.Signals) else ""
            message = f"worker was killed by signal {-code}{name}"
            if -code == signal.SIGKILL and itself and not starved and not filled:
                message += ", which was not sent by the platform"
            elif self._crash and itself and -code in _CRASHES:
                message += f": {self._crash}"
        if starved:
            self._reason = Reason.REASON_OUT_OF_MEMORY
            message += f": {self._memory.explanation()}"
        elif filled:
            self._reason = Reason.REASON_OUT_OF_DISK
            message += f": {self._disk.explanation()}"
        if code >= 0:
            return shim_pb2.WorkerExited(exit_code=code, reason=self._reason, message=message)
        return shim_pb2.WorkerExited(signal=-code, reason=self._reason, message=message)


async def _connects(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(probe, (host, port))
        except OSError:
            return False
        return True


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST_CAUSE else f"{line[:_LONGEST_CAUSE]}..."
