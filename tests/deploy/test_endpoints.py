"""The endpoints that a deploy reports for an app."""

from __future__ import annotations

from fal.deploy.results import endpoints_of
from fal_grpc.adapter.revision import ServiceURLs

URLS = ServiceURLs(playground="http://h/me/a", run="http://h/me/a", queue="http://h/queue/me/a", ws="", log="")


def found(**paths: object) -> list[tuple[tuple[str, ...], str]]:
    metadata = {"openapi": {"paths": {f"/{name}": item for name, item in paths.items()}}}
    return [(endpoint.methods, endpoint.url) for endpoint in endpoints_of(metadata, URLS)]


def test_each_path_has_its_method_and_a_websocket_its_scheme() -> None:
    shown = found(run={"post": {}}, live={"x-fal-protocol": {}, "post": {}})
    assert shown == [(("POST",), "http://h/me/a/run"), ((), "ws://h/me/a/live")]


def test_health_is_listed_only_if_the_author_wrote_it() -> None:
    assert found(health={"get": {}}) == []
    assert found(health={"get": {}, "post": {}}) == [(("GET", "POST"), "http://h/me/a/health")]


def test_without_a_description_the_root_is_called() -> None:
    (endpoint,) = endpoints_of({}, URLS)
    assert (endpoint.methods, endpoint.url) == (("POST",), "http://h/me/a/")
