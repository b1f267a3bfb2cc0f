"""Finding apps in files."""

from __future__ import annotations

import queue
import sys
import threading

import pytest

from fal.deploy.errors import AppFileError, AppNotFoundError, DeployError
from fal.deploy.load import load_app
from fal.deploy.preparation import prepare

APP = "class {0}(fal.App):\n    @fal.endpoint('/')\n    def run(self) -> str: ...\n\n"
ARRIVED, GO_ON = queue.Queue(), queue.Queue()  # for an import that is in progress while an app is loaded
FUNCTION = "@fal.function()\ndef {0}(): ...\n\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, *parts, name="app.py"):
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("import fal\n\n" + "".join(parts))
    return path


@pytest.mark.parametrize(
    ("parts", "symbol", "found"),
    [
        ([APP.format("One")], None, "One"),
        ([APP.format("One"), FUNCTION.format("two")], None, "One"),
        ([APP.format("One"), FUNCTION.format("two")], "two", "two"),
        ([FUNCTION.format("two")], None, "two"),
        ([APP.format("One"), APP.format("Other")], "Other", "Other"),
    ],
)
def test_what_is_meant(place, parts, symbol, found):
    with load_app(write(place, *parts), symbol) as loaded:
        assert loaded.symbol == found
        assert loaded.source_code.startswith("import fal")


@pytest.mark.parametrize(
    ("parts", "symbol", "words"),
    [
        ([], None, "has no fal.App and no fal.function"),
        ([APP.format("One"), APP.format("Other")], None, "has several: One, Other. Name one, as in app.py::One"),
        ([FUNCTION.format("one"), FUNCTION.format("other")], None, "has several: one, other"),
        ([APP.format("One")], "Two", "has no Two: it has One"),
        (["THING = 3\n"], "THING", "THING in"),
    ],
)
def test_what_is_not_found(place, parts, symbol, words):
    with pytest.raises(AppNotFoundError) as caught, load_app(write(place, *parts), symbol):
        pass
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 / 0\n", "line 3: ZeroDivisionError"),
        ("raise ModuleNotFoundError('none', name='pydantic')\n", "the app extra has it: pip install 'fal-grpc[app]'"),
        ("import no_such_package\n", "install it here too, or import it inside of setup()"),
        ("def broken(:\n", "line 3: SyntaxError: invalid syntax"),
        ("import sys; sys.exit(3)\n", "line 3: SystemExit: 3"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(place, line, words):
    with pytest.raises(AppFileError) as caught, load_app(write(place, line)):
        pass
    assert words in str(caught.value)
    assert str(place / "app.py") in str(caught.value)


def test_the_place_of_a_syntax_error_is_said_once(place):
    with pytest.raises(AppFileError) as caught, load_app(write(place, "def broken(:\n")):
        pass
    assert str(caught.value).count("line 3") == 1


def test_a_syntax_error_is_shown_with_its_line_and_a_caret(place):
    with pytest.raises(AppFileError) as caught, load_app(write(place, "class One(fal.App)\n    pass\n")):
        pass
    first, line, caret = str(caught.value).split("\n")
    assert first.endswith("app.py, line 3: SyntaxError: expected ':'")
    assert line == "    class One(fal.App)"
    assert caret == " " * line.index(")") + " ^"


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("from helpres import x\n", "helpers"),
        ("import pack.tabels\n", "pack.tables"),
        ("import pakc\n", "pack"),
    ],
)
def test_a_misspelt_neighbor_is_named(place, line, near):
    (place / "helpers.py").write_text("x = 1\n")
    (place / "pack").mkdir()
    (place / "pack" / "__init__.py").write_text("")
    (place / "pack" / "tables.py").write_text("")
    with pytest.raises(AppFileError) as caught, load_app(write(place, line)):
        pass
    assert f"Did you mean '{near}'" in str(caught.value)
    assert "install" not in str(caught.value)


def test_an_edit_of_a_neighbor_counts_within_the_same_second(place):
    path = write(place, "from quick import VALUE\n", FUNCTION.format("run"))
    for value in range(3):
        (place / "quick.py").write_text(f"VALUE = {value}\n")
        with load_app(path) as loaded:
            assert vars(loaded.module)["VALUE"] == value


def test_no_file(place):
    with pytest.raises(AppNotFoundError, match="there is no file"), load_app(place / "none.py"):
        pass


def test_nothing_is_left_behind(place):
    path, modules = list(sys.path), set(sys.modules)
    write(place, name="neighbor_of_app.py")
    with load_app(write(place, "import neighbor_of_app\n", APP.format("One"))) as loaded:
        assert loaded.module.__name__ in sys.modules
    assert sys.path == path
    assert set(sys.modules) == modules


def test_what_another_thread_imports_meanwhile_stays_its_own(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    (place / "of_the_program.py").write_text("from tests.deploy.test_load import meet\n\nmeet()\n")
    (place / "of_the_app.py").write_text("")
    path = write(place, "import of_the_app\n", APP.format("One"))
    outcome = queue.Queue()

    def program():
        GO_ON.get()
        try:
            outcome.put(__import__("of_the_program"))
        except KeyError as error:
            outcome.put(error)

    other = threading.Thread(target=program)
    other.start()
    with load_app(path) as loaded:
        GO_ON.put(None)
        ARRIVED.get()
        assert "of_the_program" in sys.modules
        assert "of_the_program" not in loaded.imported
        assert "of_the_app" in loaded.imported
    GO_ON.put(None)
    other.join()
    try:
        assert outcome.get() is sys.modules["of_the_program"]
        assert "of_the_app" not in sys.modules
    finally:
        del sys.modules["of_the_program"]


def meet():
    """Signal that the module is half imported. Wait until the app is loaded."""
    ARRIVED.put(None)
    GO_ON.get()


def test_a_changed_file_is_loaded_again(place):
    for name in ("One", "Two"):
        with load_app(write(place, APP.format(name))) as loaded:
            assert loaded.symbol == name


def test_a_name_of_a_known_module_hides_none(place):
    path = write(place, "import json\n", FUNCTION.format("run"), name="json.py")
    with load_app(path) as loaded:
        assert loaded.module is not sys.modules["json"]
    assert hasattr(sys.modules["json"], "dumps")


def test_a_python_that_serves_no_app_is_refused(place):
    path = write(place, "@fal.function(python_version='3.8')\ndef run(): ...\n")
    with pytest.raises(DeployError, match=r"set python_version to \'3\.11\'"):
        prepare(str(path))


@pytest.mark.parametrize("requirement", [".", ".[extra]", "./local", "-e .", "/srv/package"])
def test_requirements_of_this_machine_are_refused(place, requirement):
    path = write(place, f"@fal.function(requirements=[{requirement!r}])\ndef run(): ...\n")
    with pytest.raises(DeployError, match="path of this machine"):
        prepare(str(path))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig", "euc-jp"])
def test_a_file_in_another_encoding_is_read_as_python_reads_it(place, encoding):
    word = "日本" if encoding == "euc-jp" else "caf\u00e9"
    cookie = "" if encoding == "utf-8-sig" else f"# -*- coding: {encoding} -*-\n"
    text = f"{cookie}import fal\nNAME = {word!r}\n{FUNCTION.format('run')}"
    path = place / "app.py"
    path.write_bytes(text.encode(encoding))
    with load_app(path) as loaded:
        assert vars(loaded.module)["NAME"] == word
        assert loaded.source_code == text
        assert loaded.source == path.read_bytes()
    assert prepare(str(path)).source_code == text


def test_an_encoding_that_is_unknown_is_named(place):
    path = place / "app.py"
    path.write_bytes(b"# coding: klingon\nimport fal\n")
    with pytest.raises(AppFileError, match="unknown encoding: klingon"), load_app(path):
        pass


def test_libraries_leave_compiled_files_and_neighbors_none(place, tmp_path_factory, monkeypatch):
    libraries = tmp_path_factory.mktemp("libraries")
    (libraries / "far_library.py").write_text("import far_leaf\n")
    (libraries / "far_leaf.py").write_text("")
    write(place, "import far_library\n", name="near_helper.py")
    monkeypatch.syspath_prepend(libraries)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    with load_app(write(place, "import near_helper\n", FUNCTION.format("one"))):
        assert "far_leaf" in sys.modules
    assert sys.dont_write_bytecode is False
    compiled = {path.name.partition(".")[0] for top in (place, libraries) for path in top.rglob("*.pyc")}
    assert compiled == {"far_library", "far_leaf"}


def test_nothing_is_compiled_where_that_is_not_wanted(place, tmp_path_factory, monkeypatch):
    libraries = tmp_path_factory.mktemp("libraries")
    (libraries / "far_silent.py").write_text("")
    monkeypatch.syspath_prepend(libraries)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with load_app(write(place, "import far_silent\n", FUNCTION.format("one"))):
        assert "far_silent" in sys.modules
    assert not list(libraries.rglob("*.pyc"))
