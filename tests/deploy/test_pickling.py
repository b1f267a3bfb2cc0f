"""The pickle of an app: small, and without traces of this machine. If it is impossible, the error is clear."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import fal
from fal.deploy.errors import SerializationError
from fal.deploy.pickling import RUNTIME_MODULES, pack_modules, pickled
from fal.deploy.preparation import prepare

APP = """
import fal
from helpers import help_out


class Sample(fal.App):
    local_python_modules = ["helpers"]

    @fal.endpoint("/")
    def run(self) -> str:
        return help_out()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, text, name="app.py"):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text)
    return str(place / name)


def definition_of(ref: str) -> bytes:
    function = prepare(ref).function
    assert function is not None
    return function.pickle()


def test_a_definition_is_small_and_has_no_path_of_this_project(place):
    write(place, "def help_out():\n    return 'helped'\n", "helpers.py")
    definition = definition_of(write(place, APP))
    assert len(definition) < 300_000
    assert str(Path(__file__).parents[2]).encode() not in definition


def test_the_runtime_has_no_path_of_this_machine():
    import marshal
    import zlib

    packed = marshal.loads(zlib.decompress(pack_modules()))
    assert set(packed) == set(RUNTIME_MODULES)
    root = str(Path(__file__).parents[2]).encode()
    assert all(root not in code for _, code in packed.values())


def test_the_runtime_imports_nothing_but_what_serves():
    script = (
        "import sys; import fal.app.server, fal.app.targets, fal.app.realtime, fal.container; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    unwanted = ["grpc", "google", "cloudpickle", "tomlkit", "yaml", "httpx", "requests", "rich", "isolate"]
    found = subprocess.run([sys.executable, "-c", script, *unwanted], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_importing_fal_is_cheap():
    script = "import sys; import fal; print(len([name for name in sys.modules if name.startswith('fal')]))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_packages_travel_whole(place):
    write(place, "", "pack/__init__.py")
    write(place, "VALUE = 'from a neighbor'\ndef value():\n    return VALUE\n", "pack/neighbor.py")
    app = write(
        place,
        "import fal\nfrom .neighbor import value\n\n@fal.function()\ndef run():\n    return value()\n",
        "pack/deep.py",
    )
    definition = definition_of(app)
    (place / "load.py").write_text(f"import pickle\nprint(pickle.loads({definition!r})())\n")
    ran = subprocess.run([sys.executable, "-P", place / "load.py"], capture_output=True, text=True, cwd="/", check=True)
    assert ran.stdout == "from a neighbor\n"


MODELS = """
from __future__ import annotations

import enum
from typing import Annotated, Any, Generic, Literal, TypeVar

import fal
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field, field_validator, model_validator

T = TypeVar("T")


class Color(enum.Enum):
    red = "red"


class Base(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seed: int | None = None


class Node(BaseModel):
    children: list[Node] = []
    later: Later | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]


class Input(Base):
    prompt: str = Field(default="x", min_length=1)
    count: Annotated[int, Field(ge=0)] = 1
    color: Color = Color.red
    word: Literal["a", "b"] = "a"
    node: Node | None = None
    page: Page[Node] | None = None
    _kept: Any = PrivateAttr(default=3)

    @field_validator("prompt")
    @classmethod
    def stripped(cls, value):
        return value.strip()

    @model_validator(mode="after")
    def checked(self):
        if self.count == 13:
            raise ValueError("unlucky")
        return self

    @computed_field
    @property
    def double(self) -> int:
        return 2 * self.count


class Later(BaseModel):
    value: int


DEFAULT = Input(prompt=" default ")


@fal.function()
def run():
    given = Input(prompt=" p ", node={"children": [{}], "later": {"value": "3"}}, page={"items": [{}]})
    problems = 0
    for wrong in ({"extra": 1}, {"count": 13}, {"word": "c"}, {"prompt": ""}):
        try:
            Input(**wrong)
        except ValueError:
            problems += 1
    schema = sorted(Input.model_json_schema()["properties"])
    return [given.model_dump(mode="json"), given._kept, DEFAULT.prompt, problems, schema]
"""


def test_pydantic_models_arrive_whole(place):
    definition = definition_of(write(place, MODELS))
    (place / "load.py").write_text(f"import json, pickle\nprint(json.dumps(pickle.loads({definition!r})()))\n")
    ran = subprocess.run([sys.executable, "-P", place / "load.py"], capture_output=True, text=True, cwd="/", check=True)
    from json import loads

    dumped, kept, default, problems, schema = loads(ran.stdout)
    assert dumped == {
        "seed": None,
        "prompt": "p",
        "count": 1,
        "color": "red",
        "word": "a",
        "node": {"children": [{"children": [], "later": None}], "later": {"value": 3}},
        "page": {"items": [{"children": [], "later": None}]},
        "double": 2,
    }
    assert (kept, default, problems) == (3, "default", 4)
    assert schema == ["color", "count", "node", "page", "prompt", "seed", "word"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import socket; HELD = socket.socket(); HELD.close()", "are best made in setup()"),
        ("HELD = (item for item in ())", "are best made in setup()"),
    ],
)
def test_what_cannot_be_pickled_is_explained(place, line, words):
    source = f"import fal\n{line}\n\n@fal.function()\ndef run():\n    return HELD\n"
    with pytest.raises(SerializationError) as caught:
        definition_of(write(place, source))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("use", "named"),
    [
        ("from helpers_of_app import help_out\n\n@fal.function()\ndef run():\n    return help_out()\n", True),
        ("import helpers_of_app\n\n@fal.function()\ndef run():\n    return helpers_of_app.help_out()\n", True),
        ("import helpers_of_app\n\n@fal.function()\ndef run():\n    return 3\n", False),
    ],
)
def test_a_module_that_a_runner_would_lack_is_named(place, use, named):
    write(place, "def help_out(): ...\n", "helpers_of_app.py")
    app = write(place, "import fal\n" + use)
    if named:
        with pytest.raises(SerializationError, match=r"uses helpers_of_app, .* local_python_modules"):
            definition_of(app)
        definition_of(
            write(place, "import fal\n" + use.replace("function()", "function(app_files=['helpers_of_app.py'])"))
        )
    else:
        definition_of(app)


def test_this_package_travels_from_wherever_it_is():
    """The app may be above a checkout of this project. The project is installed from there."""
    assert not pickled(fal.App, [], refuse_modules_in=Path(fal.__file__).parents[1]).missing


def test_local_python_modules_must_be_importable(place):
    with pytest.raises(SerializationError, match="local_python_modules has 'no_such_module'"):
        prepare(write(place, "import fal\n\n@fal.function(local_python_modules=['no_such_module'])\ndef run(): ...\n"))


def test_registered_modules_are_forgotten_afterwards(place):
    from cloudpickle import cloudpickle

    before = cloudpickle.list_registry_pickle_by_value()
    write(place, "def help_out():\n    return 'helped'\n", "helpers.py")
    prepare(write(place, APP))
    assert cloudpickle.list_registry_pickle_by_value() == before
    assert pickle.dumps(prepare) is not None
