"""Objects of the deployer's process are never sent as data. They are sent by name, or refused with name and line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fal.deploy.errors import SerializationError
from fal.deploy.preparation import prepare

PRIVATE = "private-thing-of-the-deployer"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPLOYER_ONLY", PRIVATE)
    monkeypatch.setenv("FAL_KEY", f"key-id:{PRIVATE}")
    return tmp_path


def written(place, text: str) -> str:
    (place / "app.py").write_text(text)
    return str(place / "app.py")


def pickled(place: Path, source: str) -> bytes:
    function = prepare(written(place, source)).function
    assert function is not None
    return function.pickle()


def answer(place, definition: bytes) -> Any:
    """Return the function's result in a process with another environment."""
    (place / "definition").write_bytes(definition)
    code = "import json, pickle; print(json.dumps(pickle.load(open('definition', 'rb'))()))"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code, "argument"],
        env={"PATH": os.environ["PATH"], "RUNNER_ONLY": "of the runner"},
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


HOLDERS = {
    "from import": ("from os import environ", "environ"),
    "from import as": ("from os import environ as e", "e"),
    "of the module": ("import os", "os.environ"),
    "assigned": ("import os\nENV = os.environ", "ENV"),
    "bytes": ("from os import environb", "{k.decode(): v.decode() for k, v in environb.items()}"),
    "in a list": ("import os\nKEPT = [os.environ]", "KEPT[0]"),
    "in a dict": ("import os\nKEPT = {'env': os.environ}", "KEPT['env']"),
    "inner dict": ("import os\nKEPT = os.environ._data", "{k.decode(): v.decode() for k, v in KEPT.items()}"),
    "class attribute": ("import os\nclass Box:\n    env = os.environ", "Box.env"),
    "instance": ("import os\nclass Box:\n    def __init__(self): self.env = os.environ\nBOX = Box()", "BOX.env"),
    "default argument": ("import os\ndef read(env=os.environ): return env", "read()"),
    "keyword default": ("import os\ndef read(*, env=os.environ): return env", "read()"),
    "closure": ("import os\ndef make(env):\n    return lambda: env\nread = make(os.environ)", "read()"),
    "partial": ("import functools, os\nread = functools.partial(dict, os.environ)", "read()"),
    "bound method": ("import os\ncopied = os.environ.copy", "copied()"),
    "chain map": ("import collections, os\nKEPT = collections.ChainMap({}, os.environ)", "dict(KEPT)"),
    "simple namespace": ("import os, types\nKEPT = types.SimpleNamespace(env=os.environ)", "KEPT.env"),
    "dataclass default": (
        "import os, dataclasses as d\n@d.dataclass\nclass B:\n v: dict = d.field(default_factory=lambda: os.environ)",
        "B().v",
    ),
    "dataclass instance": (
        "import os\nfrom dataclasses import dataclass\n@dataclass\nclass Box:\n    env: object\nBOX = Box(os.environ)",
        "BOX.env",
    ),
    "named tuple": (
        "import os, typing\nclass Box(typing.NamedTuple):\n    env: object\nBOX = Box(os.environ)",
        "BOX.env",
    ),
    "model field": (
        "import os, typing\nfrom pydantic import BaseModel\nclass Box(BaseModel):\n    env: typing.Any = os.environ",
        "Box.model_fields['env'].default",
    ),
}


@pytest.mark.parametrize(("top", "use"), HOLDERS.values(), ids=HOLDERS)
def test_the_environment_is_the_runners(place, top, use):
    source = f"import fal\n{top}\n\n@fal.function()\ndef run():\n    return dict({use})\n"
    definition = pickled(place, source)
    assert PRIVATE.encode() not in definition
    found = answer(place, definition)
    assert found["RUNNER_ONLY"] == "of the runner"
    assert "DEPLOYER_ONLY" not in found


def test_arguments_path_and_streams_are_the_runners(place):
    source = """
import fal
from sys import argv, path, stdin, stdout, stderr, modules, orig_argv
import sys
import logging

handler = logging.StreamHandler(stderr)

@fal.function()
def run():
    same = [argv is sys.argv, path is sys.path, stdin is sys.stdin, stdout is sys.stdout, stderr is sys.stderr]
    return [*same, modules is sys.modules, orig_argv is sys.orig_argv, handler.stream is sys.stderr]
"""
    assert answer(place, pickled(place, source)) == [True] * 8


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("import os\nKEY = os.environ['FAL_KEY']", r"KEY \(app\.py, line 3, .*\) holds the value of FAL_KEY"),
        ("import os\nKEPT = dict(os.environ)", r"KEPT \(app\.py, line 3, .*\) holds a copy of this machine's env"),
        ("import os\nKEPT = {**os.environ, 'A': 'b'}", "holds a copy of this machine's environment"),
        ("import os\nclass KEPT:\n    env = os.environ.copy()", r"KEPT\.env \(app\.py, line 4"),
        (
            "from fal_grpc.credentials import KeyCredentials\nKEPT = KeyCredentials('a', 'b')",
            r"KEPT \(app\.py, line 3, .*\) holds credentials",
        ),
    ],
)
def test_a_copied_secret_is_refused_by_name(place, top, words):
    name = "KEY" if "KEY =" in top else "KEPT"
    source = f"import fal\n{top}\n\n@fal.function()\ndef run():\n    return str({name})\n"
    with pytest.raises(SerializationError, match=words):
        pickled(place, source)
