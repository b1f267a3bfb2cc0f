"""Every example can be deployed as it says. It works as it says in its own environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fal.deploy.load import load_app
from fal.deploy.preparation import prepare
from fal.deploy.requests import environment_spec, machine_requirements
from tests.support.controller import ROOT

EXAMPLES = Path(__file__).parents[2] / "examples"
DEPLOYED = {
    "hello.py": ["Hello"],
    "with_setup.py": ["Numbers"],
    "stream.py": ["Counter"],
    "function.py": ["shout", "report"],
    "realtime.py": ["Squares"],
    "tested/greeter.py": ["Greeter"],
}


def test_every_example_is_here():
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    assert found == {*DEPLOYED, "tested/test_greeter.py"}


@pytest.mark.parametrize(
    ("name", "symbol"), [(name, symbol) for name, symbols in DEPLOYED.items() for symbol in symbols]
)
def test_it_can_be_deployed(name, symbol):
    app = prepare((str(EXAMPLES / name), symbol))
    assert app.function is not None
    assert len(app.function.pickle()) < 300_000
    assert environment_spec(app).kind == "virtualenv"
    assert machine_requirements(app).machine_types in (("XS",), ("S",))


@pytest.mark.parametrize("name", DEPLOYED)
def test_it_says_how_to_deploy_and_call_it(name):
    with load_app(EXAMPLES / name, DEPLOYED[name][0]) as loaded:
        text = loaded.module.__doc__
    assert text is not None
    assert f"fal deploy examples/{name}" in text
    assert "curl" in text
    assert "RUN/" in text
    assert 'RUN is the address that the deploy printed after "POST"' in " ".join(text.split())


def test_hello(start):
    app = start(EXAMPLES / "hello.py")
    assert app.post("/", json={"name": "Ada"}).json() == {"message": "Hello, Ada!"}
    assert app.get("/health").status_code == 200


def test_stream(start):
    app = start(EXAMPLES / "stream.py")
    answer = app.post("/stream", json={"until": 3, "pause_seconds": 0})
    assert [line for line in answer.text.splitlines() if line] == [f'data: {{"number": {n}}}' for n in (1, 2, 3)]


def test_function(start):
    app = start(EXAMPLES / "function.py", "shout")
    assert app.post("/", json={"text": "hello"}).json() == {"text": "HELLO!"}


def test_realtime(start):
    app = start(EXAMPLES / "realtime.py")
    assert app.post("/", json={"number": 4}).json() == {"square": 16}


def test_with_setup(start, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "humanize.py").write_text("def intword(n):\n    return f'about {n}'\n")
    app = start(
        EXAMPLES / "with_setup.py", environment={"GREETING": "Welcome", "PYTHONPATH": str(tmp_path / "packages")}
    )
    assert app.post("/", json={"number": 5}).json()["text"] == "Welcome: about 5"
    app.terminate()
    assert app.wait() == 0
    assert "no more numbers" in app.out


def test_an_app_with_tests(tmp_path):
    """Its tests pass, pytest finds the fixtures, and nothing is left."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "PYTEST_"))}
    place = EXAMPLES / "tested"
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
