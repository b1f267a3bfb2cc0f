"""Passwords in URLs are masked."""

from __future__ import annotations

import pytest

from fal_server.builders.builds import UrlRedactor


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x @ https://me:hunter2@host/y", "x @ https://****@host/y"),
        ("git+https://hunter2@host/y@main", "git+https://****@host/y@main"),
        ("`https://me:p@ss@host/y`", "`https://****@host/y`"),
        ("no https://host/y@main here", "no https://host/y@main here"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_urls(text, shown):
    assert UrlRedactor([])(text) == shown


def test_known_passwords_outside_of_urls():
    redact = UrlRedactor(["x @ https://git:hun%2Fter2@host/y"])
    assert redact("401 for hun/ter2 or hun%2Fter2 with git") == "401 for **** or **** with git"
