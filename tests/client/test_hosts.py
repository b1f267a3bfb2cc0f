"""The addresses of apps, and that no key is sent in plaintext."""

from __future__ import annotations

import pytest

from fal.app_http import open_client
from fal.hosts import find_hosts
from fal.settings import resolve
from fal_grpc.errors import ConfigError, InsecureChannelError

HERE = {"FAL_GRPC_HOST": "127.0.0.1:81"}


@pytest.mark.parametrize(
    ("environ", "run", "queue", "ws"),
    [
        (HERE, "http://127.0.0.1:81", "http://127.0.0.1:81/queue", "http://127.0.0.1:81"),
        (
            {"FAL_GRPC_HOST": "plane.example"},
            "https://plane.example",
            "https://plane.example/queue",
            "https://plane.example",
        ),
        ({}, "https://fal.run", "https://queue.fal.run", "https://ws.fal.run"),
        (
            {"FAL_GRPC_HOST": "api.example.com:8443"},
            "https://example.com:8443",
            "https://queue.example.com:8443",
            "https://ws.example.com:8443",
        ),
        (
            HERE | {"FAL_RUN_HOST": "localhost:82/a/"},
            "http://localhost:82/a",
            "http://localhost:82/a/queue",
            "http://localhost:82/a",
        ),
        (
            HERE | {"FAL_GRPC_TLS": "1", "FAL_QUEUE_RUN_HOST": "127.0.0.1:82/q"},
            "https://127.0.0.1:81",
            "https://127.0.0.1:82/q",
            "https://127.0.0.1:81",
        ),
        (
            {"FAL_RUN_HOST": "run.example", "FAL_QUEUE_RUN_HOST": "q.example:8"},
            "https://run.example",
            "https://q.example:8",
            "https://ws.run.example",
        ),
        # An explicit scheme is kept, and not added again.
        (
            {"FAL_RUN_HOST": "https://run.example/", "FAL_WS_RUN_HOST": "https://w.example/ws/"},
            "https://run.example",
            "https://queue.run.example",
            "https://w.example/ws",
        ),
        # Another machine is called by TLS, even if the controller on this one is not.
        (
            HERE | {"FAL_RUN_HOST": "run.example"},
            "https://run.example",
            "https://run.example/queue",
            "https://run.example",
        ),
        ({"FAL_GRPC_HOST": "[::1]:443"}, "http://[::1]:443", "http://[::1]:443/queue", "http://[::1]:443"),
        ({"FAL_GRPC_HOST": "https://[::2]"}, "https://[::2]", "https://[::2]/queue", "https://[::2]"),
    ],
)
def test_hosts(environ, run, queue, ws, home):
    settings = resolve(environ=environ | {"FAL_KEY": "id:secret", "HOME": str(home)})
    found = find_hosts(settings, environ)
    assert (found.run, found.queue, found.ws) == (run, queue, ws)
    assert found.realtime == run.replace("http", "ws", 1)


@pytest.mark.parametrize(
    "more",
    [
        {"FAL_RUN_HOST": "http://other.example"},
        {"FAL_QUEUE_RUN_HOST": "http://other.example/queue"},
        {"FAL_WS_RUN_HOST": "http://other.example"},
        {"FAL_RUN_HOST": "other.example", "ISOLATE_TEST_MODE": "1"},
    ],
)
def test_the_key_goes_to_no_other_machine_in_plaintext(more, home):
    environ = {"HOME": str(home), **HERE, **more}
    with pytest.raises(InsecureChannelError):
        find_hosts(resolve(environ=environ | {"FAL_KEY": "id:secret"}), environ)
    find_hosts(resolve(needs_key=False, environ=environ), environ)  # without a key, anything goes


@pytest.mark.parametrize("host", ["ftp://x", "a b", "user@host", "host:x"])
def test_a_malformed_host_is_named_with_its_variable(host, home):
    environ = {"HOME": str(home), **HERE, "FAL_RUN_HOST": host}
    with pytest.raises(ConfigError, match="FAL_RUN_HOST"):
        find_hosts(resolve(needs_key=False, environ=environ), environ)


@pytest.mark.parametrize(
    ("host", "url"),
    [("rest.y:7", "https://rest.y:7"), ("https://rest.y", "https://rest.y"), ("127.0.0.1:9/", "http://127.0.0.1:9")],
)
def test_the_host_of_accounts_may_have_a_scheme(host, url, home):
    environ = {"HOME": str(home), "FAL_GRPC_HOST": "127.0.0.1:81", "FAL_REST_HOST": host}
    assert resolve(needs_key=False, environ=environ).account_url == url


def test_a_client_of_apps_sends_no_key_in_plaintext(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(InsecureChannelError):
        open_client("http://other.example/me/app", {"Authorization": "Key id:secret"}, 1.0)
    open_client("http://other.example/me/app", {"X-Other": "1"}, 1.0).close()
    open_client("http://127.0.0.1:1/me/app", {"Authorization": "Key id:secret"}, 1.0).close()
