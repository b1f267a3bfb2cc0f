"""Unique prefixes of ids, wherever a command takes an id."""

from __future__ import annotations

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1 import app_pb2, key_pb2, revision_pb2, runner_pb2
from fal_grpc.v1.runner_pb2 import ListRunnersResponse, RunnerInfo

IDS = ("83dd5028-24bc-4895-9c1a-0d6f4a4e1b7d", "83ddffff-7a1e-4a55-8f0e-6c2f6b1f2a3c")
OLD = "0984522d-7a1e-4a55-8f0e-6c2f6b1f2a3c"


@pytest.fixture
def runners(controller):
    def listed(request, _context):
        ended = [RunnerInfo(runner_id=OLD, state=RunnerInfo.TERMINATED)] if request.HasField("start_time") else []
        return ListRunnersResponse(
            runners=[*(RunnerInfo(runner_id=runner_id, alias="hello") for runner_id in IDS), *ended]
        )

    controller.answers["ListRunners"] = listed
    controller.answers["StopRunner"] = runner_pb2.StopRunnerResponse()
    controller.answers["KillRunner"] = runner_pb2.KillRunnerResponse()
    controller.answers["GetRunner"] = lambda request, _: runner_pb2.GetRunnerResponse(
        runner=RunnerInfo(runner_id=request.runner_id)
    )
    return controller


@pytest.mark.parametrize("command", ["stop", "kill"])
def test_a_unique_prefix_names_a_runner(runners, command):
    assert main(["runners", command, "83dd5"]) == 0
    assert runners.request(f"{command.capitalize()}Runner").runner_id == IDS[0]


def test_an_ended_runner_is_found_too(runners, capsys):
    assert main(["runners", "get", "09"]) == 0
    assert OLD in capsys.readouterr().out


def test_an_ambiguous_prefix_lists_the_candidates(runners, capsys):
    assert main(["runners", "kill", "83dd"]) == 2
    message = capsys.readouterr().err
    assert "'83dd' is the beginning of 2 runners:" in message
    assert all(f"  {runner_id}  hello" in message for runner_id in IDS)
    assert "KillRunner" not in [name for name, _ in runners.asked]


def test_a_full_id_is_not_looked_up(runners):
    assert main(["runners", "kill", IDS[0]]) == 0
    assert [name for name, _ in runners.asked] == ["KillRunner"]


def test_an_unknown_id_is_left_to_the_controller(runners, capsys):
    runners.answers["KillRunner"] = (grpc.StatusCode.NOT_FOUND, "there is no runner zzz")
    assert main(["runners", "kill", "zzz"]) == 1
    assert runners.request("KillRunner").runner_id == "zzz"


def test_an_id_that_is_a_prefix_of_another_is_itself(controller):
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[RunnerInfo(runner_id="a-1"), RunnerInfo(runner_id="a-10")]
    )
    controller.answers["KillRunner"] = runner_pb2.KillRunnerResponse()
    assert main(["runners", "kill", "a-1"]) == 0
    assert controller.request("KillRunner").runner_id == "a-1"


def test_an_id_of_another_form_is_not_looked_up(runners):
    assert main(["runners", "kill", "runner_abc123xyz"]) == 0
    assert [name for name, _ in runners.asked] == ["KillRunner"]


def test_a_key_that_may_not_list_can_still_name_a_runner(controller):
    controller.answers["ListRunners"] = (grpc.StatusCode.PERMISSION_DENIED, "no")
    controller.answers["KillRunner"] = runner_pb2.KillRunnerResponse()
    assert main(["runners", "kill", "a-1"]) == 0
    assert controller.request("KillRunner").runner_id == "a-1"


def test_revisions_and_keys(controller):
    controller.answers["ListApplications"] = revision_pb2.ListApplicationsResult(
        applications=[revision_pb2.ApplicationInfo(application_id=IDS[0])]
    )
    controller.answers["SetAlias"] = app_pb2.SetAliasResult(alias_info=app_pb2.AliasInfo(alias="hello"))
    controller.answers["ListUserKeys"] = key_pb2.ListUserKeysResponse(user_keys=[key_pb2.UserKeyInfo(key_id=OLD)])
    controller.answers["RevokeUserKey"] = key_pb2.RevokeUserKeyResponse()
    assert main(["apps", "set-rev", "hello", "83"]) == 0
    assert controller.request("SetAlias").revision == IDS[0]
    assert main(["keys", "revoke", "0984"]) == 0
    assert controller.request("RevokeUserKey").key_id == OLD
