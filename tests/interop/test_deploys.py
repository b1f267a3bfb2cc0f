"""The official client's deploys and runs: class apps, functions, entry points. Its commands on apps are here, too."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.interop.wheels import served
from tests.support.controller import Controller
from tests.support.official import Official


def app(official: Official, name: str, *flags: str) -> dict[str, Any]:
    (found,) = [item for item in official.json("apps", "list", *flags)["apps"] if item["alias"] == name]
    return dict(found)


def test_what_was_deployed_answers(controller: Controller, official: Official, tiny: str) -> None:
    answer = controller.call(f"/local/{tiny}", {"text": "one"})
    assert (answer.status, answer.json()) == (200, {"text": "one1st", "greeting": "hello"})
    assert controller.call(f"/local/{tiny}/stream", {}).body.count(b"data: ") == 3
    assert controller.call(f"/local/{tiny}", {"text": []}).status == 422


@covers("deploy (class app)", "deploy --attach/--detach", "deploy --message --annotation", "deploy --strategy")
def test_deploys_with_every_flag(controller: Controller, official: Official) -> None:
    official.fal("secrets", "set", "INTEROP_GREETING=from a secret")
    place = (SAMPLES / "tiny.py", "--app-name", "flags", "--auth")
    first = official.json("deploy", *place, "public", "--message", "first [one]", "--annotation", "a=b")
    assert (first["app_name"], first["status"]) == ("flags", "deployed")
    assert controller.call("/local/flags", {"text": ""}).json() == {"text": "1st", "greeting": "from a secret"}
    official.fal("secrets", "unset", "INTEROP_GREETING")

    second = official.json("deploy", *place, "private", "--detach", "--strategy", "rolling")
    assert second["revision"] != first["revision"]
    third = official.json("deploy", *place, "private", "--attach", "--reset-scale")
    fourth = official.json("deploy", *place, "private", "--strategy", "recreate", "--no-cache")
    assert app(official, "flags")["revision"] == fourth["revision"]
    assert app(official, "flags")["auth_mode"] == "private"
    assert controller.call("/local/flags", {}).status == 401
    assert controller.call("/local/flags", {}, key=controller.key).status == 200
    revisions = official.fal("apps", "list-rev", "flags").stdout
    assert all(str(deployed["revision"]) in revisions for deployed in (first, second, third, fourth))


@covers("deploy --check", "deploy --yes")
def test_a_deploy_is_checked_first(official: Official, tiny: str) -> None:
    before = app(official, tiny)["revision"]
    asked = official.fal("deploy", SAMPLES / "tiny.py", "--app-name", tiny, "--check", check=False)
    assert asked.returncode == 1
    assert "Re-run with --yes" in asked.stdout
    assert app(official, tiny)["revision"] == before
    done = official.json("deploy", SAMPLES / "tiny.py", "--app-name", "checked", "--check", "--yes")
    assert done["status"] == "deployed"


@covers("deploy (function)", "deploy (served function)")
def test_functions_are_deployed(controller: Controller, official: Official) -> None:
    official.fal("deploy", f"{SAMPLES / 'functions.py'}::served", "--auth", "public")
    assert controller.call("/local/served?text=up", {}).json() == {"text": "UP"}
    done = official.json("deploy", f"{SAMPLES / 'functions.py'}::counted")
    assert app(official, "counted")["revision"] == done["revision"]


@covers("deploy --env", "apps list --env", "apps delete --env")
def test_environments_hold_apps_of_their_own(controller: Controller, official: Official) -> None:
    official.fal("environments", "create", "stage")
    official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "staged", "--auth", "public", "--env", "stage")
    assert controller.call("/local/staged--stage", {"text": ""}).status == 200
    assert app(official, "staged--stage", "--env", "stage")["environment_name"] == "stage"
    assert "staged" not in json.dumps(official.json("apps", "list"))
    assert official.json("apps", "runners", "staged", "--env", "stage")["runners"]
    assert "deleted" in official.fal("apps", "delete", "staged", "--env", "stage").stdout
    assert official.json("apps", "list", "--env", "stage")["apps"] == []


@pytest.fixture
def wheel(tmp_path: Path) -> Generator[str]:
    """Return the loopback address of a wheel with the sample app."""
    with served(tmp_path, "tinyentry", {"app.py": (SAMPLES / "tiny.py").read_text()}) as address:
        yield address


def pyproject(directory: Path, wheel: str) -> None:
    """Return a project with an app that an entry point names."""
    (directory / "pyproject.toml").write_text(
        "[project]\nname = 'tinyentry'\nversion = '1.0'\n\n[tool.fal.apps.entry]\n"
        "python_entry_point = 'tinyentry.app:TinyApp'\nauth = 'public'\nmachine_type = 'XS'\n"
        f"requirements = ['fal==1.83.0', 'humanize==4.11.0', 'tinyentry @ {wheel}']\n"
    )


@covers("deploy (pyproject.toml, python_entry_point)")
def test_an_entrypoint_app_is_deployed(controller: Controller, official: Official, tmp_path: Path, wheel: str) -> None:
    pyproject(tmp_path, wheel)
    done = official.fal("deploy", "entry", cwd=tmp_path)
    assert "/local/entry" in done.stdout
    answer = controller.call("/local/entry", {"text": "the "}, timeout=240)
    assert (answer.status, answer.json()) == (200, {"text": "the 1st", "greeting": "hello"})


@covers("run (python_entry_point)")
def test_an_entrypoint_app_runs_until_ctrl_c(
    controller: Controller, official: Official, tmp_path: Path, wheel: str
) -> None:
    pyproject(tmp_path, wheel)
    with official.terminal("run", "entry", cwd=tmp_path) as running:
        path = running.wait_for(r"Sync +http://[^/]+(/local/tinyentry-[\w-]+)/", 120)[1]
        running.wait_for(r"setup is done")
        assert controller.call(path, {"text": "a "}).json() == {"text": "a 1st", "greeting": "hello"}
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 1


FILES = """
import fal


class Reader(fal.App, keep_alive=60):
    machine_type = "XS"
    app_files = ["words.txt", "empty.txt"]

    @fal.endpoint("/")
    def read(self) -> dict:
        return {"words": open("words.txt").read(), "empty": open("/app/empty.txt").read()}
"""


@covers("deploy (app files)")
def test_an_app_with_files_is_deployed(controller: Controller, official: Official, tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(FILES)
    (tmp_path / "words.txt").write_text("the words")
    (tmp_path / "empty.txt").touch()
    official.fal("deploy", "reader.py", "--auth", "public", cwd=tmp_path)
    assert controller.call("/local/reader", {}).json() == {"words": "the words", "empty": ""}


@covers("run (function)")
def test_functions_run(official: Official) -> None:
    assert "counts to 1,000,000" in official.fal("run", f"{SAMPLES / 'functions.py'}::counted").stdout
    raised = official.fal("run", f"{SAMPLES / 'functions.py'}::raised", check=False)
    assert raised.returncode == 1
    assert "raised on purpose" in raised.stdout


@covers("run --local")
def test_a_function_runs_on_the_own_machine(official: Official, tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("import fal\n\n\n@fal.function()\ndef here():\n    print('ran here')\n")
    nowhere = Official(python=official.python, home=official.home, host="127.0.0.1:1", key="no:key")
    assert "ran here" in nowhere.fal("run", tmp_path / "here.py::here", "--local").stdout


@covers("run (class app)")
def test_an_app_runs_until_ctrl_c(controller: Controller, official: Official) -> None:
    with official.terminal("run", str(SAMPLES / "tiny.py")) as running:
        path = running.wait_for(r"Sync +http://[^/]+(/local/tiny-app-[0-9a-f]+)")[1]
        running.wait_for(r"setup is done")
        assert controller.call(path, {"text": "a "}).json() == {"text": "a 1st", "greeting": "hello"}
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 1
    assert "Aborted" in running.seen


@pytest.fixture(scope="module")
def changed(official: Official) -> str:
    """Return an app that tests may change, with two revisions."""
    for _ in range(2):
        official.fal("deploy", SAMPLES / "tiny.py", "--app-name", "changed", "--auth", "public")
    return "changed"


@covers("apps list", "apps list-rev", "apps set-rev")
def test_revisions_are_listed_and_chosen(official: Official, changed: str) -> None:
    revisions = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", official.fal("apps", "list-rev", changed).stdout)
    assert len(revisions) == 2
    before = app(official, changed)["revision"]
    (other,) = [revision for revision in revisions if revision != before]
    official.fal("apps", "set-rev", changed, other, "--auth", "private", "--strategy", "recreate")
    assert (app(official, changed)["revision"], app(official, changed)["auth_mode"]) == (other, "private")
    assert changed in official.fal("apps", "list", "--filter", "chang", "--sort-by-runners").stdout
    assert changed not in official.fal("apps", "list", "--filter", "nothing").stdout


@covers("apps scale")
def test_scaling_is_set(official: Official, changed: str) -> None:
    numbers = {
        "keep_alive": 7,
        "max_multiplexing": 2,
        "max_concurrency": 5,
        "min_concurrency": 0,
        "concurrency_buffer": 1,
        "concurrency_buffer_perc": 20,
        "scaling_delay": 3,
        "request_timeout": 11,
        "request_start_timeout": 12,
        "startup_timeout": 130,
    }
    flags = [part for name, value in numbers.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    official.fal("apps", "scale", changed, *flags, "--machine-types", "XS", "S", "--regions", "us-east")
    now = app(official, changed)
    assert {name: now[name] for name in numbers} == numbers
    assert (now["machine_types"], now["valid_regions"]) == (["XS", "S"], ["us-east"])
    assert "No parameters" in official.fal("apps", "scale", changed).stdout
    wrong = official.fal("apps", "scale", changed, "--keep-alive", "-1", check=False)
    assert wrong.returncode == 1
    assert "keep_alive" in wrong.stdout


@covers("apps rollout", "apps delete-rev", "apps delete")
def test_apps_are_rolled_out_and_deleted(official: Official, changed: str) -> None:
    assert f"Rolled out application {changed}" in official.fal("apps", "rollout", changed, "--force").stdout
    revisions = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", official.fal("apps", "list-rev", changed).stdout)
    current = app(official, changed)["revision"]
    refused = official.fal("apps", "delete-rev", current, check=False)
    assert refused.returncode == 1
    (old,) = [revision for revision in revisions if revision != current]
    assert official.fal("apps", "delete-rev", old).stdout == ""
    assert "deleted" in official.fal("apps", "delete", changed).stdout
    assert "not found" in official.fal("apps", "delete", changed).stdout


SDK = """
import json, sys
from fal.api import SyncServerlessClient
client = SyncServerlessClient()
deployed = client.deploy(sys.argv[1], app_name="by-sdk", auth="public")
scaled = client.apps.scale("by-sdk", keep_alive=33)
client.apps.rollout("by-sdk", force=True)
listed = [alias for alias in client.apps.list(filter="by-sdk")]
print(json.dumps([deployed.revision, deployed.app_name, deployed.urls["sync"], scaled.keep_alive, listed[0].revision]))
"""


@covers("SyncServerlessClient().apps", "SyncServerlessClient().deploy")
def test_the_sdk_deploys_and_scales(controller: Controller, official: Official) -> None:
    revision, name, urls, keep_alive, listed = official.script(SDK, str(SAMPLES / "tiny.py"))
    assert (name, keep_alive, listed) == ("by-sdk", 33, revision)
    assert f"http://{controller.host}/local/by-sdk/stream" in urls.values()
