"""Code at a file's top means the same here and in runners. It is sent either way, or refused."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings

import pytest

from fal.deploy.errors import SerializationError
from fal.deploy.preparation import prepare
from fal.deploy.sources import METHOD
from fal_runner.worker import worker
from tests.app.shapes import SHAPES

# Pickled by value, these are refused, with the name of what cannot be sent.
REFUSED = {"generator object", "open file", "socket"}
FILE = "import fal\n{top}\n\n@fal.function()\ndef run():\n    return {use}\n"
# Each shape runs in its own process, forked from one that has imported nothing of the apps.
CALLER = """
import importlib.util, json, os, sys, traceback
spec = importlib.util.spec_from_file_location("_fal_worker", sys.argv[1])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
import asyncio, cloudpickle, dataclasses, enum, logging, pydantic, typing
for name, method, path in json.load(sys.stdin):
    read, write = os.pipe()
    if not os.fork():
        os.environ["FAL_APP_DIR"] = path + ".files"
        os.mkdir(path + ".files")
        try:
            if method == "here":
                sys.path.insert(0, os.path.dirname(path))
                found = importlib.import_module(os.path.basename(path)[:-3]).run.func()
            else:
                found = worker.load({"path": path, "method": method})()
            answer = json.dumps({"value": found})
        except BaseException as error:
            answer = json.dumps({"error": "".join(traceback.format_exception(error))[-1500:]})
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        print(json.dumps([name, json.load(pipe)]), flush=True)
    os.wait()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Return each shape's results here, sent as a module, and by value."""
    with warnings.catch_warnings():
        # Some files open a file or a socket, which lives as long as their module.
        warnings.simplefilter("ignore", ResourceWarning)
        found = _said(tmp_path_factory)
        gc.collect()
    return found


def _said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    place = tmp_path_factory.mktemp("shapes")
    work: list[tuple[str, str, str]] = []
    answers: dict[str, dict[str, object]] = {name: {} for name in SHAPES}
    for number, (name, (top, use)) in enumerate(SHAPES.items()):
        file = place / f"shape_{number}.py"
        file.write_text(FILE.format(top=top, use=use))
        code = prepare(str(file)).function
        assert code is not None
        (place / f"{number}.bundle").write_bytes(code.bundle)
        work += [(f"{name}|here", "here", str(file)), (f"{name}|source", METHOD, str(place / f"{number}.bundle"))]
        try:
            (place / f"{number}.pickle").write_bytes(code.pickle())
        except SerializationError as error:
            answers[name]["value"] = {"refused": str(error)}
        else:
            work.append((f"{name}|value", "cloudpickle", str(place / f"{number}.pickle")))
    ran = subprocess.run(
        [sys.executable, "-P", "-c", CALLER, worker.__file__],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
        env={"PATH": os.environ["PATH"]},
    )
    for line in ran.stdout.splitlines():
        key, answer = json.loads(line)
        name, _, way = key.partition("|")
        answers[name][way] = answer
    return answers


def test_there_are_enough_shapes() -> None:
    assert len(SHAPES) >= 150


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_says_the_same_there(said, name):
    here, source, value = (said[name].get(way) for way in ("here", "source", "value"))
    assert "value" in here, here
    assert source == here
    if name in REFUSED:
        assert "cannot be pickled" in value["refused"]
    else:
        assert value == here
