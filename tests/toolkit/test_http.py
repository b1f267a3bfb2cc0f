"""The toolkit's headers to the servers that it calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fal.toolkit import FileUploadException, download_file
from fal.toolkit.file.uploading import by_rest


class House(ThreadingHTTPServer):
    """A server that keeps each request's headers. It redirects if it has a target."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.seen: list[dict[str, str]] = []
        self.leads_to: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: House

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        leads_to = self.server.leads_to if self.path != "/end" else None
        self.send_response(200 if leads_to is None else 302)
        if leads_to is not None:
            self.send_header("Location", leads_to)
        self.send_header("Content-Length", "0" if leads_to else "2")
        self.end_headers()
        if leads_to is None:
            self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base's name


@contextmanager
def house() -> Iterator[House]:
    with House() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_redirect_takes_the_caller_s_key_to_no_other_host(tmp_path: Path) -> None:
    given = {"Authorization": "Bearer secret", "Cookie": "session=secret", "X-Kind": "weights"}
    with house() as first, house() as second:
        first.leads_to = f"{second.url}/end"
        assert download_file(f"{first.url}/a", tmp_path, request_headers=given).read_bytes() == b"ok"
        first.leads_to = f"{first.url}/end"
        download_file(f"{first.url}/b", tmp_path, force=True, request_headers=given)
    assert [seen.get("authorization") for seen in first.seen] == ["Bearer secret"] * 3
    (elsewhere,) = second.seen
    assert "secret" not in str(elsewhere)
    assert elsewhere["x-kind"] == "weights"


def test_a_key_is_sent_to_no_other_machine_in_plaintext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", "id:secret")
    monkeypatch.setenv("FAL_REST_HOST", "rest.example.com")
    monkeypatch.setenv("ISOLATE_TEST_MODE", "1")
    with pytest.raises(FileUploadException, match="in plaintext others can read the key"):
        by_rest(b"x", "a.txt", "text/plain", {}, "fal-cdn-v3")
