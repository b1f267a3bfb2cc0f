"""Measure this project beside its peers in one run. They are proxies before one app, and servers of one endpoint.

`make bench-peers` also writes the figures into docs/explanation/performance/peers.md, with a plot. nginx and HAProxy
take part where they are installed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psutil

from benchmarks import _http_haproxy, _http_nginx
from benchmarks._http_haproxy import HaProxy
from benchmarks._http_nginx import Nginx
from benchmarks._peer_servers import SERVERS, serving
from benchmarks._warm_workers import wait_for_workers
from benchmarks.endpoint import APP, bare, cpu_seconds
from benchmarks.http_hop import Server
from fal_grpc import VERSION
from tests.support.controller import running

_AT_ONCE = (1, 32)
_ROUNDS = 3
_SECONDS = 1.0
_PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/performance/peers.md"
_PLOT = "images/peers.svg"
_ENDPOINT = "An endpoint"
_BEGIN, _END = "<!-- figures: make bench-peers writes them -->", "<!-- end of the figures -->"

Run: TypeAlias = "dict[str, float]"
Figures: TypeAlias = "dict[str, dict[int, list[Run]]]"
Starts: TypeAlias = "dict[str, float]"


class Peer(NamedTuple):
    """A server to call, and its processes. Their CPU time counts, with their children's.

    Attributes:
        enter: the command that runs another one in the server's network.
        start: the seconds to its first answer, from the start of its process, or here from a request without a runner.
    """

    port: int
    path: str
    pids: tuple[int, ...]
    key: str = ""
    enter: tuple[str, ...] = ()
    start: float | None = None

    def load(self, connections: int) -> Run:
        """Call it for a second."""
        body = b'{"name": "Ada"}'
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nAuthorization: Key {self.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        command = [
            *self.enter,
            sys.executable,
            "-m",
            "benchmarks._http_load",
            str(self.port),
            str(connections),
            str(_SECONDS),
        ]
        before = self._cpu_seconds()
        done = subprocess.run(command, input=head.encode() + body, stdout=subprocess.PIPE, check=True, timeout=60)
        found: Run = json.loads(done.stdout)
        found["cpu_us"] = (self._cpu_seconds() - before) / (found["per_second"] * _SECONDS) * 1e6
        return found

    def _cpu_seconds(self) -> float:
        processes = {pid for own in self.pids for pid in (own, *(c.pid for c in psutil.Process(own).children(True)))}
        return sum(map(cpu_seconds, processes))


@contextmanager
def proxies() -> Generator[dict[str, Peer]]:
    """Serve a raw ASGI app under uvicorn, and the proxies before it."""
    with ExitStack() as stack:
        app = Server("app")
        stack.callback(app.close)
        gateway = Server("gateway", str(app.port))
        stack.callback(gateway.close)
        found = {f"uvicorn {version('uvicorn')} alone": Peer(app.port, "/run", tuple(app.pids()))}
        if _http_nginx.is_installed():
            nginx = Nginx(app.port)
            stack.callback(nginx.close)
            found[f"nginx {_nginx_version()}"] = Peer(nginx.port, "/me/bench/run", (nginx.pids()[0],))
        if _http_haproxy.program() is not None:
            haproxy = HaProxy(app.port)
            stack.callback(haproxy.close)
            found[f"HAProxy {_http_haproxy.version()}"] = Peer(haproxy.port, "/me/bench/run", tuple(haproxy.pids()))
        found[f"fal-grpc {VERSION}"] = Peer(gateway.port, "/me/bench/run", tuple(gateway.pids()), gateway.key)
        yield found


@contextmanager
def servers(place: Path) -> Generator[dict[str, Peer]]:
    """Serve one endpoint in FastAPI alone, on this platform and with peers."""
    with ExitStack() as stack:
        began = time.monotonic()
        plain = stack.enter_context(bare(access_log=False))
        listens = time.monotonic() - began
        controller = stack.enter_context(running(place / "state"))
        app = place / "bench_app.py"
        app.write_text(APP)
        controller.fal("deploy", str(app), "--app-name", "bench")
        wait_for_workers({controller.process.pid: 1})
        began = time.monotonic()
        assert controller.call("/local/bench/async", {"name": "Ada"}, key=controller.key).status == 200
        answers = time.monotonic() - began
        found = {
            f"FastAPI {version('fastapi')} alone": Peer(
                plain.port, "/async", tuple(plain.processes.values()), start=listens
            ),
            f"fal-grpc {VERSION}": Peer(
                controller.port, "/local/bench/async", (controller.process.pid,), controller.key, start=answers
            ),
        }
        for server in SERVERS:
            port, pid, start = stack.enter_context(serving(server, place))
            found[server.label] = Peer(port, "/predict", (pid,), enter=server.enter(pid), start=start)
        yield found


def _nginx_version() -> str:
    shown = subprocess.run(["/usr/sbin/nginx", "-v"], stderr=subprocess.PIPE, check=True, text=True).stderr
    return shown.strip().rpartition("/")[2].split()[0]


def measured(peers: Mapping[str, Peer]) -> Figures:
    """Call the peers in turns."""
    found: Figures = {name: defaultdict(list) for name in peers}
    for connections in _AT_ONCE:
        for _ in range(_ROUNDS):
            for name, peer in peers.items():
                found[name][connections].append(peer.load(connections))
    return found


def table(figures: Figures, first: str, starts: Starts) -> str:
    """Return the figures as a table of Markdown. Rates are shares of the first server in the same round."""
    columns = [first, "requests/s at 32", "share", "CPU us a request", "p50, p99 ms at 1", "p50, p99 ms at 32"]
    columns += ["start, s"] if starts else []
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    base = next(iter(figures.values()))
    for name, runs in figures.items():
        pairs = zip(runs[32], base[32], strict=True)
        share = statistics.median(run["per_second"] / alone["per_second"] for run, alone in pairs)
        times = [f"{_median(runs[at], 'p50_ms'):.2f}, {_median(runs[at], 'p99_ms'):.2f}" for at in _AT_ONCE]
        rate, cpu = _median(runs[32], "per_second"), _median(runs[32], "cpu_us")
        cells = [name, f"{rate:,.0f}", f"{share:.2f}", f"{cpu:,.0f}", *times]
        cells += [f"{starts[name]:.2f}"] if starts else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(groups: Mapping[str, Figures]) -> str:
    """Return an SVG bar chart of requests a second at 32 connections."""
    rows = [(title, name, _median(runs[32], "per_second")) for title, f in groups.items() for name, runs in f.items()]
    bars: list[str] = []
    y = 10
    for title, figures in groups.items():
        bars.append(f'<text x="8" y="{y + 14}" font-weight="bold">{title}, requests a second at 32 connections</text>')
        y += 24
        most = max(rate for of, _, rate in rows if of == title)
        for name in figures:
            rate = _median(figures[name][32], "per_second")
            width = max(2, round(rate / most * 340))
            color = "#2563eb" if name.startswith("fal-grpc") else "#94a3b8"
            bars.append(
                f'<text x="8" y="{y + 14}">{name}</text>'
                f'<rect x="220" y="{y + 2}" width="{width}" height="16" fill="{color}"/>'
                f'<text x="{226 + width}" y="{y + 14}">{rate:,.0f}</text>'
            )
            y += 22
        y += 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *bars, "</svg>", ""])


def _median(runs: list[Run], of: str) -> float:
    return statistics.median(run[of] for run in runs)


def measure() -> tuple[dict[str, Figures], Starts]:
    """Return the figures of both groups, and the starts of servers."""
    with proxies() as peers:
        before_an_app = measured(peers)
    with tempfile.TemporaryDirectory() as place, servers(Path(place)) as peers:
        of_endpoint = measured(peers)
        starts = {name: peer.start for name, peer in peers.items() if peer.start is not None}
    return {"Proxies before an app": before_an_app, _ENDPOINT: of_endpoint}, starts


def shown(groups: Mapping[str, Figures], starts: Starts) -> str:
    """Return the tables."""
    tables = [table(figures, title, starts if title == _ENDPOINT else {}) for title, figures in groups.items()]
    about = (
        f"CPython {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.0f} from other "
        f"work; medians of {_ROUNDS} rounds of {_SECONDS:g} s, in turns."
    )
    return "\n\n".join([about, *tables])


def main() -> None:
    """Measure and print."""
    print(shown(*measure()))


def write() -> None:
    """Measure, and put the figures into the page."""
    groups, starts = measure()
    text = _PAGE.read_text()
    figures = f"{_BEGIN}\n\n{shown(groups, starts)}\n\n![Requests a second of each]({_PLOT})\n\n{_END}"
    _PAGE.write_text(re.sub(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", lambda _: figures, text, flags=re.DOTALL))
    plotted = _PAGE.parent / _PLOT
    plotted.parent.mkdir(exist_ok=True)
    plotted.write_text(plot(groups))
    print(figures)


if __name__ == "__main__":
    write()
