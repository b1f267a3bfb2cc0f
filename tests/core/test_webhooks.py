"""Webhooks: addresses, body, signature and retries."""

from __future__ import annotations

import hashlib
import json

import pytest

from fal_server.core.faults import InvalidArgument
from fal_server.core.outbound import checked_url
from fal_server.core.queue import Answer
from fal_server.core.webhooks import message, payload


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/x?y=1", "https://example.com", "https://[::1]:8443/"])
def test_good_addresses(url):
    assert checked_url("webhook", url) == url


@pytest.mark.parametrize(
    "url",
    ["", "example.com/x", "file:///etc/passwd", "ftp://a/b", "http://", "https://:80/", "http://a:port/", "http://a/ b",
     "http://a/\r\nHost: b", "gopher://a", "http://a/" + "x" * 5000],
)  # fmt: skip
def test_bad_addresses(url):
    with pytest.raises(InvalidArgument, match="http or https"):
        checked_url("webhook", url)


def test_payloads():
    good = json.loads(payload("q", Answer(status=200, body=b'{"a": 1}'), None))
    assert good == {
        "request_id": "q", "gateway_request_id": "q", "status": "OK", "payload": {"a": 1}, "error": None,
    }  # fmt: skip
    bad = json.loads(payload("q", Answer(status=422, body=b'{"detail": []}'), "it broke"))
    assert (bad["status"], bad["payload"], bad["error"]) == ("ERROR", {"detail": []}, "it broke")
    raw = json.loads(payload("q", Answer(status=200, body=b"\xff\x00"), None))
    assert (raw["status"], raw["payload"]) == ("OK", None)
    assert "not JSON" in raw["payload_error"]
    assert json.loads(payload("q", Answer(status=204), None))["payload"] is None


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'"\\ud800"', b"NaN", b"1e999", b"\xed\xa0\x80", b'{"a": 1'],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_no_receiver_can_read_is_left_out(body):
    sent = json.loads(payload("q", Answer(status=200, body=body), None))
    assert (sent["payload"], sent["payload_error"]) == (
        None,
        "the app's answer is not JSON: read it at the response_url",
    )


@pytest.mark.parametrize(
    "body", [b"[" * 500 + b"]" * 500, b"\xef\xbb\xbf [1.50, 1e2]\n", b'"\\ud83d\\ude00"'], ids=repr
)
def test_a_body_is_sent_as_it_is(body):
    assert json.loads(payload("q", Answer(status=200, body=body), None))["payload"] == json.loads(body)


def test_what_is_signed():
    digest = hashlib.sha256(b"{}").hexdigest()
    assert message("q", "local|local", 17, b"{}") == f"q\nlocal|local\n17\n{digest}".encode()
