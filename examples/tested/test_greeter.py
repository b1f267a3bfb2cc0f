"""Tests of greeter.py. Two run in this process, in milliseconds, and one in a runner.

Run them by `pytest examples/tested`.
"""

import pytest
from greeter import Greeter, Input

from fal.app import AppClientError


def test_it_greets(fal_local_app):
    client = fal_local_app(Greeter)
    assert client.greet(Input(name="Ada")).text == "Hello, Ada!"
    assert client.greet(Input(name="Grace")).greeted == 2


def test_it_wants_a_name(fal_local_app):
    client = fal_local_app(Greeter)
    with pytest.raises(AppClientError) as caught:
        client.greet({})
    assert caught.value.status_code == 422


def test_its_environment_has_what_it_requires(fal_app):
    client = fal_app(Greeter)
    client.greet(Input(name="Ada"))
    assert client.count({}) == {"greeted": "one"}
