"""`fal apps`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1 import app_pb2, revision_pb2, runner_pb2
from tests.cli.test_confirm import Terminal

KEYS = {
    *("alias", "revision", "auth_mode", "keep_alive", "max_concurrency", "max_multiplexing", "active_runners"),
    *("min_concurrency", "concurrency_buffer", "concurrency_buffer_perc", "scaling_delay", "machine_types"),
    *("request_timeout", "startup_timeout", "valid_regions", "environment_name", "request_start_timeout"),
}


def app(alias="hello", **fields):
    given = {"revision": "rev-1", "machine_types": ["S", "M"], "valid_regions": ["us-east"], "active_runners": 1}
    return app_pb2.AliasInfo(alias=alias, **{**given, **fields})


@pytest.fixture
def apps(controller):
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(
        aliases=[
            app("hello", active_runners=2),
            app("b--staging", environment_name="staging", concurrency_buffer=1, concurrency_buffer_perc=20),
            app("a", valid_regions=["eu-west"], auth_mode=app_pb2.PUBLIC),
        ]
    )
    return controller


def test_json_has_exactly_the_published_keys(apps, capsys):
    assert main(["apps", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["apps"]
    assert [item["alias"] for item in found] == ["a", "b--staging", "hello"]
    assert all(set(item) == KEYS for item in found)
    assert found[0]["auth_mode"] == "public"
    assert found[0]["request_start_timeout"] is None
    assert found[1]["environment_name"] == "staging"


FAILING = {"active_runners": 0, "failed_starts": 2, "last_failure": "OSError: no weights", "failed_runner_id": "r-1"}
NOTE = (
    "sick has no runner, its last 2 starts failed: OSError: no weights\n  `fal runners logs r-1` shows what it wrote\n"
)


def test_an_app_whose_starts_fail_says_why(controller, capsys):
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(
        aliases=[app("sick", **FAILING), app("half", **FAILING | {"active_runners": 1}), app("well")]
    )
    assert main(["apps", "list"]) == 0
    assert capsys.readouterr().err == NOTE
    assert main(["apps", "list", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = {item["alias"]: item for item in json.loads(captured.out)["apps"]}
    assert set(found["well"]) == KEYS
    assert {key: found["sick"][key] for key in FAILING} == FAILING


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runners", "list"], NOTE),
        (["apps", "runners", "sick"], NOTE),
        (["apps", "runners", "well"], ""),
        (["runners", "list", "--json"], ""),
    ],
)
def test_lists_of_runners_name_the_apps_that_have_none_because_starts_fail(controller, monkeypatch, arguments, said):
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(aliases=[app("sick", **FAILING), app("well")])
    controller.answers["ListRunners"] = runner_pb2.ListRunnersResponse()
    controller.answers["ListAliasRunners"] = runner_pb2.ListAliasRunnersResponse()
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert main(arguments) == 0
    assert terminal.getvalue() == said


def test_the_table_shows_names_without_their_environment(apps, capsys):
    assert main(["app", "list", "-o", "wide"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("Name   Env      Revision  Auth     Min Concurrency")
    assert [row.split()[:2] for row in rows] == [["a", "main"], ["b", "staging"], ["hello", "main"]]
    assert "20%, min 1" in rows[1]


def test_the_list_is_filtered_and_sorted_here(apps, capsys):
    assert main(["apps", "list", "--json", "--sort-by-runners", "--regions", "us-east", "eu-north"]) == 0
    assert [item["alias"] for item in json.loads(capsys.readouterr().out)["apps"]] == ["b--staging", "hello"]
    assert main(["apps", "list", "--json", "--filter", "ell"]) == 0
    assert [item["alias"] for item in json.loads(capsys.readouterr().out)["apps"]] == ["hello"]


def test_the_environment_is_sent(apps):
    assert main(["apps", "list", "--env", "staging"]) == 0
    assert apps.request("ListAliases").environment_name == "staging"


def test_scale_sends_only_what_is_given(controller, capsys):
    controller.answers["UpdateApplication"] = app_pb2.UpdateApplicationResult(alias_info=app())
    assert main(["apps", "scale", "hello", "--keep-alive", "0", "--machine-types", "S", "M"]) == 0
    request = controller.request("UpdateApplication")
    assert {field.name for field, _ in request.ListFields()} == {"application_name", "keep_alive", "machine_types"}
    assert request.keep_alive == 0
    captured = capsys.readouterr()
    assert "hello" in captured.out
    assert "machine_types" in captured.err


def test_scale_warns_if_no_machine_can_run_the_app(controller, capsys):
    controller.answers["UpdateApplication"] = app_pb2.UpdateApplicationResult(alias_info=app())
    lack = "no machine is in a region that the app allows (us-west); they are in: us-east"
    controller.answers["ExplainApp"] = app_pb2.ExplainAppResponse(app=app(), lack=lack)
    assert main(["apps", "scale", "hello", "--regions", "us-west"]) == 0
    assert f"Warning: no machine can run it: {lack}" in capsys.readouterr().err
    controller.answers["ExplainApp"] = app_pb2.ExplainAppResponse(app=app())
    assert main(["apps", "scale", "hello", "--regions", "us-east"]) == 0
    assert "Warning" not in capsys.readouterr().err
    controller.asked.clear()
    assert main(["apps", "scale", "hello", "--keep-alive", "1"]) == 0
    controller.request("UpdateApplication")
    assert len(controller.asked) == 1, "a number makes no machine unfit"


def test_explain_says_where_it_may_run(controller, capsys):
    answer = app_pb2.ExplainAppResponse(app=app(machine_types=["S", "M"], valid_regions=["us-west"]), lack="too far")
    controller.answers["ExplainApp"] = answer
    assert main(["apps", "explain", "hello"]) == 0
    shown = capsys.readouterr().out
    assert "\nRuns on: S, M, in one of the regions us-west\nNo machine can run it: too far\n" in shown
    assert main(["apps", "explain", "hello", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["machine_types"], found["regions"], found["lack"]) == (["S", "M"], ["us-west"], "too far")


def test_scale_without_a_change_calls_nobody(controller, capsys):
    assert main(["apps", "scale", "hello"]) == 0
    assert "No parameters for update were provided, ignoring." in capsys.readouterr().err
    assert controller.asked == []


def test_set_rev(controller, capsys):
    controller.answers["SetAlias"] = app_pb2.SetAliasResult(alias_info=app(revision="rev-2"))
    assert main(["apps", "set-rev", "hello", "rev-2", "--auth", "shared", "--strategy", "rolling"]) == 0
    request = controller.request("SetAlias")
    assert (request.alias, request.revision, request.auth_mode) == ("hello", "rev-2", app_pb2.SHARED)
    assert request.deployment_strategy == app_pb2.ROLLING
    assert "rev-2" in capsys.readouterr().out


def test_list_rev(controller, capsys):
    revision = revision_pb2.ApplicationInfo(
        application_id="rev-1",
        machine_types=["S"],
        application_name="hello",
        current=True,
        message="a note",
        annotations=[revision_pb2.Annotation(name="GIT", value="abc")],
    )
    revision.created_at.FromDatetime(datetime(2026, 1, 31, 9, tzinfo=UTC))
    old = revision_pb2.ApplicationInfo(application_id="rev-0")
    controller.answers["ListApplications"] = revision_pb2.ListApplicationsResult(applications=[revision, old])
    assert main(["apps", "list-rev", "hello", "-o", "wide"]) == 0
    assert controller.request("ListApplications").application_name == "hello"
    head, row, _ = capsys.readouterr().out.splitlines()
    assert head.startswith("Revision  Env   Min Concurrency")
    assert row.startswith("rev-1     main  0")
    assert row.split()[-6:] == ["2026-01-31T09:00:00Z", "hello", "*", "a", "note", "GIT=abc"]
    controller.asked.clear()
    assert main(["apps", "list-rev", "--json"]) == 0
    assert not controller.request("ListApplications").HasField("application_name")
    new, old = json.loads(capsys.readouterr().out)["revisions"]
    assert (new["app_name"], new["current"], new["message"]) == ("hello", True, "a note")
    assert new["annotations"] == {"GIT": "abc"}
    assert (old["current"], old["message"], old["annotations"]) == (None, None, {})


def test_get_shows_everything_about_an_app(apps, capsys):
    revision = revision_pb2.ApplicationInfo(application_id="rev-1", current=True, message="a note")
    revision.created_at.FromDatetime(datetime(2026, 1, 31, 9, tzinfo=UTC))
    apps.answers["ListApplications"] = revision_pb2.ListApplicationsResult(applications=[revision])
    apps.answers["ListAliasRunners"] = runner_pb2.ListAliasRunnersResponse(
        runners=[runner_pb2.RunnerInfo(runner_id="r-1", state=runner_pb2.RunnerInfo.IDLE)]
    )
    explained = app_pb2.ExplainAppResponse(failed_starts=2, last_failure="exit code 1", next_revision="rev-2")
    explained.app.CopyFrom(app())
    apps.answers["ExplainApp"] = explained
    assert main(["apps", "get", "hello"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "hello",
        "rev-1",
        "1 IDLE",
        "moves to rev-2",
        "2 in a row; the last one: exit code 1",
        "a note",
        "r-1",
    ):
        assert part in shown
    assert main(["apps", "get", "hello", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["alias"], found["last_failure"], found["runners"][0]["runner_id"]) == ("hello", "exit code 1", "r-1")
    assert found["revisions"][0]["message"] == "a note"


def test_get_needs_nothing_that_other_controllers_lack(apps, capsys):
    apps.answers["ListApplications"] = revision_pb2.ListApplicationsResult()
    apps.answers["ListAliasRunners"] = runner_pb2.ListAliasRunnersResponse()
    assert main(["apps", "get", "hello", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["alias"], found["in_flight"], found["addresses"]) == ("hello", None, {})
    assert main(["apps", "get", "nosuch"]) == 1
    assert "Application 'nosuch' not found" in capsys.readouterr().err


def test_rollout(controller, capsys):
    controller.answers["RolloutApplication"] = app_pb2.RolloutApplicationResult()
    assert main(["apps", "rollout", "hello"]) == 0
    assert controller.request("RolloutApplication").HasField("force")
    assert not controller.request("RolloutApplication").force
    assert capsys.readouterr().out == "Rolled out application hello\n"


def test_delete(controller, capsys):
    controller.answers["DeleteAlias"] = app_pb2.DeleteAliasResult(revision="rev-1")
    assert main(["apps", "delete", "hello"]) == 0
    assert capsys.readouterr().out == "Application 'hello' deleted (rev-1)\n"


def test_deleting_an_app_that_is_not_there_is_an_error(controller, capsys):
    controller.answers["DeleteAlias"] = (grpc.StatusCode.NOT_FOUND, "no")
    assert main(["apps", "delete", "hello"]) == 1
    assert "Application 'hello' not found" in capsys.readouterr().err


def test_delete_rev(controller):
    controller.answers["DeleteApplication"] = revision_pb2.DeleteApplicationResult()
    assert main(["apps", "delete-rev", "rev-1"]) == 0
    assert controller.request("DeleteApplication").application_id == "rev-1"
