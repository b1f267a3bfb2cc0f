"""Apps served in the process of their caller, without a controller."""

from __future__ import annotations

import os
import threading

import pytest

import fal
from fal.app import AppClient, AppClientError
from fal_grpc.errors import MissingCredentialsError


class Counted(fal.App, name="counted"):
    ended = 0

    def setup(self) -> None:
        self.calls = 0

    @fal.endpoint("/")
    def count(self) -> dict[str, int]:
        self.calls += 1
        return {"calls": self.calls}

    @fal.endpoint("/fail")
    def fail(self) -> dict[str, int]:
        raise RuntimeError("on purpose")

    def teardown(self) -> None:
        Counted.ended += 1


class Failing(fal.App, name="failing"):
    def setup(self) -> None:
        raise RuntimeError("no weights")

    @fal.endpoint("/")
    def answer(self) -> dict[str, int]:
        return {}


class Hanging(fal.App, name="hanging"):
    goes_on = threading.Event()

    def setup(self) -> None:
        self.goes_on.wait()

    @fal.endpoint("/")
    def answer(self) -> dict[str, int]:
        return {}


@pytest.fixture(autouse=True)
def no_controller(monkeypatch, tmp_path):
    """Choose no controller: no variables and an empty home."""
    for name in [name for name in os.environ if name.startswith(("FAL_", "ISOLATE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_an_app_is_served_from_setup_to_teardown():
    before, state = Counted.ended, os.environ.get("FAL_RUNNER_STATE")
    with AppClient.connect(Counted) as client, AppClient.connect(Counted) as other:
        assert [client.count({}), client.count({}), other.count({})] == [{"calls": 1}, {"calls": 2}, {"calls": 1}]
        assert Counted.ended == before
        with pytest.raises(AppClientError) as caught:
            client.fail({})
        assert caught.value.status_code == 500
    assert Counted.ended == before + 2
    assert os.environ.get("FAL_RUNNER_STATE") == state


def test_what_setup_raises_is_raised_in_the_test():
    with pytest.raises(AppClientError, match="RuntimeError: no weights"), AppClient.connect(Failing):
        pass


def test_a_setup_that_hangs_is_given_up():
    with (
        pytest.raises(AppClientError, match="took more than 0 seconds"),
        AppClient.connect(Hanging, startup_timeout=0),
    ):
        pass
    Hanging.goes_on.set()


def test_a_controller_without_a_key_is_not_passed_over(monkeypatch):
    monkeypatch.setenv("FAL_HOST", "127.0.0.1:1")
    with pytest.raises(MissingCredentialsError), AppClient.connect(Counted):
        pass
