"""The bundle of an app's modules: its sources, and loading in runners."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fal.deploy.errors import SerializationError
from fal.deploy.preparation import prepare
from fal.deploy.sources import MAX_DATA_BYTES, METHOD
from fal_runner.worker import worker

FUNCTION = "import fal\n{top}\n\n@fal.function({options})\ndef run():\n    {inner}\n    return {value}\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place: Path, **files: str) -> None:
    for name, text in files.items():
        path = place / name.replace("__SLASH__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".py").write_text(text)


def app(place: Path, *, top: str = "", options: str = "", inner: str = "", value: str = "1", name: str = "app.py"):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(FUNCTION.format(top=top, options=options, inner=inner or "pass", value=value))
    code = prepare(str(place / name)).function
    assert code is not None
    return code


def run(place: Path, bundle: bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the function of a bundle like the worker. It runs in another directory and environment."""
    there = place / "there"
    (there / "files").mkdir(parents=True, exist_ok=True)
    (there / "bundle").write_bytes(bundle)
    code = (
        "import importlib.util, json\n"
        f"spec = importlib.util.spec_from_file_location('_fal_worker', {worker.__file__!r})\n"
        "worker = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(worker)\n"
        f"if __name__ == '__main__': print(json.dumps(worker.load({{'path': 'bundle', 'method': {METHOD!r}}})()))\n"
    )
    (there / "load.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-P", "load.py"],
        cwd=there,
        env={"PATH": os.environ["PATH"], "FAL_APP_DIR": str(there / "files"), "IS_ISOLATE_AGENT": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def list_answer(place: Path, bundle: bytes) -> list[object]:
    found = answer(place, bundle)
    assert isinstance(found, list)
    return found


def answer(place: Path, bundle: bytes) -> object:
    ran = run(place, bundle)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_what_is_imported_from_beside_goes_along_also_later_on(place):
    write(place, helper="import deeper\nVALUE = deeper.VALUE\n", deeper="VALUE = 'deep'\n", late="VALUE = 'late'\n")
    write(place, unused="VALUE = 'unused'\n")
    found = app(place, top="import helper", inner="import late", value="[helper.VALUE, late.VALUE, __name__, __file__]")
    assert found.files == ("app.py", "helper.py", "deeper.py", "late.py")
    *values, file = list_answer(place, found.bundle)
    assert values == ["deep", "late", "app"]
    assert file == str(place / "there" / "files" / "app.py")


def test_a_deploy_from_the_root_directory_works(place, monkeypatch):
    monkeypatch.chdir("/")
    assert app(place, top="import fal").files == ("app.py",)


def test_packages_go_whole(place):
    write(place, pack__SLASH____init__="", pack__SLASH__one="from .two import VALUE\n", pack__SLASH__two="VALUE = 2\n")
    write(place, pack__SLASH__sub__SLASH____init__="", pack__SLASH__sub__SLASH__never="from ... import nowhere\n")
    found = app(place, top="from pack import one", inner="import pack.sub", value="[one.VALUE, pack.sub.__name__]")
    assert "pack/sub/never.py" in found.files
    assert answer(place, found.bundle) == [2, "pack.sub"]


def test_an_app_in_a_package_keeps_its_place(place):
    write(place, pack__SLASH____init__="", pack__SLASH__near="VALUE = 'near'\n")
    (place / "pack" / "data.txt").write_text("data")
    found = app(
        place,
        name="pack/app.py",
        top="from pathlib import Path\nfrom .near import VALUE",
        options="app_files=['data.txt']",
        value="[VALUE, __name__, (Path(__file__).parent / 'data.txt').read_text()]",
    )
    files = place / "there" / "files"
    files.mkdir(parents=True)
    (files / "data.txt").write_text("data")
    assert answer(place, found.bundle) == ["near", "pack.app", "data"]


def test_namespace_packages_go_with_what_is_used(place):
    write(place, space__SLASH__used="VALUE = 'used'\n", space__SLASH__unused="VALUE = 'unused'\n")
    found = app(place, top="import space.used", value="space.used.VALUE")
    assert found.files == ("app.py", "space/used.py")
    assert answer(place, found.bundle) == "used"


def test_a_module_of_the_deploy_that_is_not_beside_the_app_stays(place):
    found = app(place, top="import httpx", value="1")
    assert found.files == ("app.py",)


def test_the_same_app_is_the_same_bundle(place):
    top = "import enum\nclass Kind(enum.Enum):\n    A = 1\nclass Held:\n    kind = Kind.A"
    first, second = (app(place, top=top, value="Held.kind.value").bundle for _ in range(2))
    assert first == second


def test_no_path_of_the_deployer_is_in_the_sources(place):
    bundle = app(place).bundle
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        sent = {name: archive.read(name) for name in archive.namelist() if name != "payload"}
    with zipfile.ZipFile(io.BytesIO(sent["runtime.zip"])) as runtime:
        sent |= {f"runtime.zip/{name}": runtime.read(name) for name in runtime.namelist()}
    assert "runtime.zip/fal/app/server.pyc" in sent
    for content in sent.values():
        assert str(Path(__file__).parents[2]).encode() not in content
        assert str(place).encode() not in content


def test_a_file_that_cannot_be_imported_there_falls_back_to_its_pickle(place):
    (place / "words.txt").write_text("from the desk")
    found = app(place, top="from pathlib import Path\nWORDS = Path('words.txt').read_text()", value="WORDS")
    ran = run(place, found.bundle)
    assert (ran.returncode, json.loads(ran.stdout)) == (0, "from the desk")
    assert "FileNotFoundError" in ran.stderr
    assert "app.py cannot be imported in the runner" in ran.stderr


def test_the_name_of_another_module_is_not_taken(place):
    for name in ("json.py", "httpx.py", "with-dash.py"):
        found = app(place, value="[__name__, __import__('json').dumps(1)]", name=name)
        assert answer(place, found.bundle) == ["fal_app_" + name[:-3].replace("-", "_"), "1"]


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_processes_can_be_started_by_every_method(place, start):
    found = app(
        place,
        top="import multiprocessing\ndef double(n): return 2 * n",
        inner=f"with multiprocessing.get_context({start!r}).Pool(1) as pool: found = pool.map(double, [1, 2])",
        value="found",
    )
    assert answer(place, found.bundle) == [2, 4]


def test_a_traceback_has_the_lines_of_the_app(place):
    found = app(place, inner="raise ValueError('here')")
    (place / "app.py").write_text("# changed since\n")
    ran = run(place, found.bundle)
    assert "raise ValueError('here')" in ran.stderr


def test_arguments_and_setup_functions_go_along(place):
    (place / "app.py").write_text(
        "import fal\n\ndef prepare():\n    return 'prepared'\n\n"
        "@fal.function(setup_function=prepare)\ndef run(given, word, *, times=1):\n    return [given, word * times]\n"
    )
    found = prepare(str(place / "app.py"), arguments=("a",), keywords={"times": 3})
    assert found.function is not None
    assert found.setup is not None
    (place / "bundle").write_bytes(found.setup.bundle)
    assert found.setup.bundle != found.function.bundle
    (place / "call").write_bytes(found.function.bundle)
    code = (
        f"import importlib.util, sys; sys.path.insert(0, {str(Path(worker.__file__).parents[2])!r}); "
        "from fal_runner.worker import worker; "
        f"function = worker.load({{'path': 'call', 'method': {METHOD!r}}}); "
        f"setup = worker.load({{'path': 'bundle', 'method': {METHOD!r}}}); print(function(setup()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert ran.stdout == "['prepared', 'aaa']\n"


def test_the_files_of_packages_go_along(place, caplog):
    write(
        place, pack__SLASH____init__="", pack__SLASH__one="import json, pathlib\n", pack__SLASH__sub__SLASH____init__=""
    )
    (place / "pack" / "sub" / "words.json").write_text('{"hello": "salut"}')
    (place / "pack" / "prompt.txt").write_text("Be brief.")
    (place / "pack" / ".env").write_text("KEY=hidden")
    (place / "pack" / "fast.so").write_bytes(b"compiled here")
    (place / "beside.txt").write_text("no part of a package")
    found = app(
        place,
        top="import importlib.resources, json\nfrom pathlib import Path\nfrom pack import one",
        value="[(Path(one.__file__).parent / 'prompt.txt').read_text(), "
        "json.loads(importlib.resources.files('pack.sub').joinpath('words.json').read_text())]",
    )
    assert set(found.files) == {
        "app.py", "pack/__init__.py", "pack/one.py", "pack/sub/__init__.py", "pack/prompt.txt", "pack/sub/words.json"
    }  # fmt: skip
    assert set(found.paths) == {place / name for name in found.files}
    assert answer(place, found.bundle) == ["Be brief.", {"hello": "salut"}]
    assert not caplog.records


def test_files_beyond_the_limit_stay_and_are_named(place, caplog):
    write(place, pack__SLASH____init__="")
    with (place / "pack" / "weights.bin").open("wb") as file:
        file.truncate(MAX_DATA_BYTES)
    (place / "pack" / "small.txt").write_text("small")
    found = app(place, top="import pack", value="pack.__name__")
    assert found.files == ("app.py", "pack/__init__.py", "pack/small.txt")
    [record] = caplog.records
    assert str(place / "pack" / "weights.bin") in record.getMessage()
    assert "app_files" in record.getMessage()


def test_an_app_for_another_python_goes_as_sources_alone(place):
    write(place, helper="VALUE = 'beside'\n")
    found = app(place, top="import helper", options="python_version='3.99'", value="helper.VALUE")
    with zipfile.ZipFile(io.BytesIO(found.bundle)) as bundle:
        names = bundle.namelist()
        with zipfile.ZipFile(io.BytesIO(bundle.read("runtime.zip"))) as runtime:
            names += runtime.namelist()
    assert not [name for name in names if name.endswith(".pyc")]
    assert "payload" not in names
    assert answer(place, found.bundle) == "beside"
    with pytest.raises(SerializationError, match=r"asks for Python 3\.99"):
        found.pickle()
