"""`fal.testing`: apps in this process and in a runner, and the plugin that pytest finds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import fal
from fal.app import AppClientError
from fal.testing import serve_here
from tests.support.controller import ROOT

APP = """\
import fal
from pydantic import BaseModel


class Input(BaseModel):
    name: str


class Output(BaseModel):
    text: str
    greeted: int


class Greeter(fal.App, name="greeter"):
    requirements = ["humanize==4.11.0"]

    def setup(self) -> None:
        self.greeted = 0

    @fal.endpoint("/")
    def greet(self, request: Input) -> Output:
        self.greeted += 1
        return Output(text=f"Hello, {request.name}!", greeted=self.greeted)

    @fal.endpoint("/count")
    def count(self) -> dict[str, str]:
        import humanize  # installed in the runner

        return {"greeted": humanize.apnumber(self.greeted)}
"""
TESTS = '''\
"""Tests of an app: the quick ones in this process, one in a runner."""

import pytest
from greeter import Greeter, Input

from fal.app import AppClientError
from fal.testing import serve_here


def test_it_greets(fal_local_app):
    client = fal_local_app(Greeter)
    assert client.greet(Input(name="Ada")).text == "Hello, Ada!"
    assert client.greet(Input(name="Grace")).greeted == 2


def test_it_wants_a_name():
    with serve_here(Greeter) as client, pytest.raises(AppClientError) as caught:
        client.greet({})
    assert caught.value.status_code == 422


def test_its_environment_has_what_it_needs(fal_app):
    client = fal_app(Greeter)
    client.greet(Input(name="Ada"))
    assert client.count({}) == {"greeted": "one"}
'''


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


def test_an_app_is_served_from_setup_to_teardown():
    before, state = Counted.ended, os.environ.get("FAL_RUNNER_STATE")
    with serve_here(Counted) as client, serve_here(Counted) as other:
        assert [client.count({}), client.count({}), other.count({})] == [{"calls": 1}, {"calls": 2}, {"calls": 1}]
        assert Counted.ended == before
        with pytest.raises(AppClientError) as caught:
            client.fail({})
        assert caught.value.status_code == 500
    assert Counted.ended == before + 2
    assert os.environ.get("FAL_RUNNER_STATE") == state


def test_what_setup_raises_is_raised_in_the_test():
    with pytest.raises(RuntimeError, match="no weights"), serve_here(Failing):
        pass


def test_pytest_finds_the_fixtures_and_nothing_is_left_behind(tmp_path):
    place = tmp_path / "tests"
    place.mkdir()
    (place / "greeter.py").write_text(APP)
    (place / "test_greeter.py").write_text(TESTS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "PYTEST_"))}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "fal.testing.plugin", "-p", "no:cacheprovider"),
            *("-c", os.devnull, "--rootdir", str(place), str(place)),
        ],
        env={
            "UV_CACHE_DIR": str(ROOT / ".cache" / "uv"),
            **kept,
            "TMPDIR": str(tmp_path),
            "HOME": str(tmp_path),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert not [path.name for path in tmp_path.glob("fal-*") if path.is_dir() and (path / "fal.db").exists()]
