"""Every example: it can be deployed, it says how, and it does what it says in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fal.deploy.load import load_app
from fal.deploy.preparation import prepare
from fal.deploy.requests import environment_spec, machine_requirements

EXAMPLES = Path(__file__).parents[2] / "examples"
DEPLOYED = {
    "hello.py": ["Hello"],
    "with_setup.py": ["Numbers"],
    "stream.py": ["Counter"],
    "function.py": ["shout", "report"],
    "realtime.py": ["Squares"],
}


def test_every_example_is_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(DEPLOYED)


@pytest.mark.parametrize(
    ("name", "symbol"), [(name, symbol) for name, symbols in DEPLOYED.items() for symbol in symbols]
)
def test_it_can_be_deployed(name, symbol):
    app = prepare((str(EXAMPLES / name), symbol))
    assert app.function is not None
    assert len(app.function.pickle()) < 200_000
    assert environment_spec(app).kind == "virtualenv"
    assert machine_requirements(app).machine_types in (("XS",), ("S",))


@pytest.mark.parametrize("name", DEPLOYED)
def test_it_says_how_to_deploy_and_call_it(name):
    with load_app(EXAMPLES / name, DEPLOYED[name][0]) as loaded:
        text = loaded.module.__doc__
    assert text is not None
    assert f"fal deploy examples/{name}" in text
    assert "curl" in text


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
