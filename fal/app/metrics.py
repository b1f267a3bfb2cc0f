"""Serves a runner's metrics. They are request counts and durations as Prometheus text, in plain asyncio.

Importing a library would take longer than the rest of this file. If the app has loaded prometheus_client, its
metrics are served, too.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """The metrics of a runner, with durations in seconds.

    Attributes:
        version: the app's version.
        in_progress: the number of requests in progress.
    """

    version: str
    in_progress: int = 0
    _requests: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _seconds: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count an answered request.

        `path` is the route's, because ids in paths would multiply the series.
        """
        key = (method, path, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._seconds[key] = self._seconds.get(key, 0.0) + seconds

    def text(self) -> str:
        """Return all metrics in Prometheus' text format."""
        lines = [
            "# TYPE fal_app_info gauge",
            f'fal_app_info{{version="{_escaped(self.version)}"}} 1',
            "# TYPE http_requests_in_progress gauge",
            f'http_requests_in_progress{{app_name="fal"}} {self.in_progress}',
            "# TYPE http_requests_total counter",
        ]
        for key, count in self._requests.items():
            lines.append(f"http_requests_total{_labels(*key)} {count}")
        lines.append("# TYPE http_request_duration_seconds summary")
        for key, seconds in self._seconds.items():
            lines.append(f"http_request_duration_seconds_sum{_labels(*key)} {seconds:.6f}")
            lines.append(f"http_request_duration_seconds_count{_labels(*key)} {self._requests[key]}")
        library = sys.modules.get("prometheus_client")
        own = library.generate_latest().decode() if library is not None else ""
        return "\n".join(lines) + "\n" + own


def _labels(method: str, path: str, status: int) -> str:
    return f'{{app_name="fal",method="{method}",path="{_escaped(path)}",status_code="{status}"}}'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


async def serve_metrics(metrics: Metrics, host: str, port: int) -> asyncio.Server | None:
    """Serve GET /metrics. If the port is taken, write a line on stderr and return None.

    The app runs without metrics then.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
            found = head.startswith((b"GET /metrics ", b"GET /metrics/ ", b"GET /metrics?"))
            body = metrics.text().encode() if found else b"not found: the metrics are at /metrics\n"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
                % (b"200 OK" if found else b"404 Not Found", len(body), body)
            )
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a caller that left or does not speak HTTP gets no response
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, host, port)
    except OSError as error:
        print(f"no metrics: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return None
