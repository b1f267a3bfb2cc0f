"""Apps of pyproject.toml, and the meaning of references."""

from __future__ import annotations

from typing import Any

import pytest

from fal.app.health import HealthCheckConfig
from fal.deploy.errors import AppNotFoundError, ProjectFileError
from fal.deploy.preparation import prepare
from fal.deploy.project import resolve_reference

CODE = """
import fal


class Small(fal.App, max_concurrency=3):
    @fal.endpoint("/")
    def run(self) -> str: ...
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    def write(text):
        (tmp_path / "pyproject.toml").write_text(text)
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / "app.py").write_text(CODE)
        monkeypatch.chdir(tmp_path / "code")
        return tmp_path

    return write


TABLE = """
[tool.fal.apps.one]
ref = "code/app.py::Small"
name = "renamed"
auth = "shared"
deployment_strategy = "recreate"
team = "us"
app_scale_settings = true
keep_alive = 77
max_concurrency = 9
machine_type = "L"
requirements = ["q"]
regions = ["us-east", "rack-1"]
exposed_port = 8123
health_check = { path = "/well", timeout_seconds = 3 }
retry_config = { timeout = { retries = 1 } }
"""


def test_an_entry(project):
    place = project(TABLE)
    found = resolve_reference("one")
    assert (found.path, found.symbol) == (place / "code" / "app.py", "Small")
    assert (found.name, found.auth, found.strategy, found.team) == ("renamed", "shared", "recreate", "us")
    assert found.reset_scale
    assert found.options["regions"] == ["us-east", "rack-1"]
    assert found.options["health_check_config"] == HealthCheckConfig(path="/well", timeout_seconds=3)


def test_code_goes_before_the_entry_and_the_entry_before_defaults(project):
    project(TABLE)
    app = prepare("one")
    assert (app.app_name, app.auth, app.strategy, app.reset_scale) == ("renamed", "shared", "recreate", True)
    assert app.options["max_concurrency"] == 3  # the class sets it
    assert app.options["keep_alive"] == 77  # the class only has the default
    assert app.options["machine_type"] == "L"
    requirements: Any = app.options["requirements"]
    assert requirements[0] == "q"
    assert app.exposed_port == 8123
    assert prepare("one", app_name="given", auth="public").app_name == "given"


def test_an_import_path(project):
    project('[tool.fal.apps.ep]\npython_entry_point = "mod:Sym"\nrequirements = ["fal-grpc[app]"]\n')
    app = prepare("ep")
    assert (app.entrypoint, app.function, app.source_code) == ("mod:Sym", None, None)
    assert (app.exposed_port, app.metrics_port) == (8080, 9090)
    assert app.options["requirements"] == ["fal-grpc[app]"]


def test_an_image_alone(project):
    project(
        '[tool.fal.apps.img]\nimage = { image = "nginx:1", cmd = ["a"] }\nexposed_port = 80\n'
        'health_check = { path = "/" }\n'
    )
    app = prepare("img")
    assert app.kind == "container"
    assert app.options["image"] == {"image": "nginx:1", "cmd": ["a"], "use_isolate": False}
    assert (app.exposed_port, app.metrics_port, app.function, app.entrypoint) == (80, None, None, None)
    assert app.options["health_check_config"] == HealthCheckConfig(path="/", method="GET")


def test_a_dockerfile(project):
    place = project('[tool.fal.apps.img]\nref = "code/app.py"\nimage = { dockerfile = "Dockerfile" }\n')
    (place / "Dockerfile").write_text("FROM x\nCOPY data /\n")
    (place / "data").write_text("d")
    app = prepare("img")
    assert app.kind == "container"
    image: Any = app.options["image"]
    assert image["docker_context_dir"] == str(place)
    assert [file.relative_path for file in app.files] == ["data"]


def test_without_a_reference_the_only_app_is_meant(project):
    place = project(TABLE)
    assert resolve_reference(None).name == "renamed"
    project(TABLE + '\n[tool.fal.apps.two]\nref = "code/app.py"\n')
    with pytest.raises(AppNotFoundError, match="several apps: one, two"):
        resolve_reference(None)
    project("[tool.other]\n")
    assert resolve_reference(None).path == place / "code" / "app.py"
    (place / "code" / "more.py").touch()
    with pytest.raises(AppNotFoundError, match=r"2 Python files \(app.py, more.py\)"):
        resolve_reference(None)


def test_references_to_files(project):
    place = project("")
    path = place / "code" / "app.py"
    assert (resolve_reference("app.py").path, resolve_reference("app.py").symbol) == (path, None)
    assert resolve_reference("app.py::Small").symbol == "Small"
    assert resolve_reference((str(path), "Small")).symbol == "Small"
    with pytest.raises(AppNotFoundError, match=r"no pyproject.toml with \[tool.fal.apps\]"):
        resolve_reference("nothing")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("keep_alife = 3", "unknown key 'keep_alife': did you mean 'keep_alive'?"),
        ("xyzzy = 3", "the keys are\n  _scheduler,"),
        ("keep_alive = -3", "keep_alive is -3: give a whole number"),
        ("keep_alive = true", "keep_alive is True"),
        ('auth = "open"', "give one of public, private, shared"),
        ('deployment_strategy = "slow"', "give one of rolling, recreate"),
        ('python_entry_point = "a:b"', "both ref and python_entry_point"),
        ("health_check = { timeout_seconds = 3 }", 'write { path = "/health" }'),
        ('health_check = { path = "/", often = 3 }', "health_check has often"),
        ('health_check = { path = "/", timeout_seconds = "3" }', "give a whole number"),
        ("image = {}", "image needs either dockerfile"),
        ('image = { image = "x", build_args = {} }', "image has build_args"),
        ("retry_config = { never = { retries = 1 } }", "the conditions are timeout"),
        ("app_scale_settings = 1", "give true or false"),
    ],
)
def test_wrong_entries_are_named(project, line, words):
    project('[tool.fal.apps.one]\nref = "code/app.py"\n' + line)
    with pytest.raises(ProjectFileError) as caught:
        resolve_reference("one")
    assert words in str(caught.value)
    assert "pyproject.toml" in str(caught.value)


def test_wrong_files_and_names(project):
    project("[tool.fal.apps.one]\n")
    with pytest.raises(ProjectFileError, match="names nothing to run"):
        resolve_reference("one")
    with pytest.raises(AppNotFoundError, match="Did you mean one"):
        resolve_reference("onne")
    project("[tool.fal.apps.one\n")
    with pytest.raises(ProjectFileError, match="cannot be read"):
        resolve_reference("one")


def test_the_older_word_for_scale_settings(project):
    project('[tool.fal.apps.one]\nref = "code/app.py"\nno_scale = false\n')
    assert resolve_reference("one").reset_scale


def test_a_byte_order_mark_in_pyproject_is_skipped(project):
    place = project("\ufeff" + TABLE)
    assert resolve_reference("one").path == place / "code" / "app.py"
