"""All lists: widths, columns, order and forms."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime

import grpc
import pytest

from fal_cli.main import main
from fal_grpc.v1 import app_pb2, environment_pb2, key_pb2, revision_pb2, secret_pb2
from fal_grpc.v1.runner_pb2 import (
    ListAliasRunnersResponse,
    ListRunnersResponse,
    RunnerInfo,
    RunnerUsage,
    WatchRunnersResponse,
)

IDS = ("83dd5028-24bc-4895-9c1a-0d6f4a4e1b7d", "0984522d-7a1e-4a55-8f0e-6c2f6b1f2a3c")
REVISION = "e7634661-1111-4222-8333-444455556666"
CREATED = datetime(2026, 1, 31, 9, tzinfo=UTC)
LISTS = (
    ["runners", "list"],
    ["apps", "runners", "text-to-image"],
    ["apps", "list"],
    ["apps", "list", "-o", "wide"],
    ["apps", "list-rev"],
    ["keys", "list"],
    ["secrets", "list"],
    ["environments", "list"],
)


class Terminal(io.StringIO):
    """A fake terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def full(controller):
    runners = [
        RunnerInfo(
            runner_id=runner_id,
            alias=alias,
            machine_type="GPU-H100",
            revision=REVISION,
            state=state,
            uptime=uptime,
            state_reason="no node has room: GPU-H100: 1 x asked for, 0 free; 2 of 2 are held by other runners now",
        )
        for runner_id, alias, state, uptime in (
            (IDS[0], "text-to-image", RunnerInfo.IDLE, 93725.0),
            (IDS[1], "b", RunnerInfo.PENDING, 0.0),
        )
    ]
    controller.answers["ListRunners"] = ListRunnersResponse(runners=runners)
    controller.answers["ListAliasRunners"] = ListAliasRunnersResponse(runners=runners)
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(
        aliases=[
            app_pb2.AliasInfo(
                alias=alias,
                revision=REVISION,
                machine_types=["GPU-H100", "GPU-A100"],
                valid_regions=["us-east", "eu-north"],
                active_runners=count,
                auth_mode=app_pb2.PUBLIC,
            )
            for alias, count in (("text-to-image", 2), ("b", 10))
        ]
    )
    revision = revision_pb2.ApplicationInfo(
        application_id=REVISION,
        machine_types=["GPU-H100"],
        application_name="text-to-image",
        current=True,
        message="what was changed and why it had to be",
        annotations=[revision_pb2.Annotation(name="GIT_SHA", value="c2bac24")],
    )
    revision.created_at.FromDatetime(CREATED)
    controller.answers["ListApplications"] = revision_pb2.ListApplicationsResult(applications=[revision])
    key = key_pb2.UserKeyInfo(key_id=IDS[0], alias="the key of the build machine")
    key.created_at.FromDatetime(CREATED)
    controller.answers["ListUserKeys"] = key_pb2.ListUserKeysResponse(user_keys=[key])
    secret = secret_pb2.Secret(name="HF_TOKEN_FOR_THE_MODELS_OF_THE_RESEARCH_TEAM")
    secret.created_time.FromDatetime(CREATED)
    controller.answers["ListSecrets"] = secret_pb2.ListSecretsResponse(secrets=[secret])
    environment = environment_pb2.EnvironmentInfo(name="staging", description="what is tried before it goes live " * 3)
    environment.created_at.FromDatetime(CREATED)
    controller.answers["ListEnvironments"] = environment_pb2.ListEnvironmentsResponse(environments=[environment])
    return controller


def shown(monkeypatch, arguments, width):
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setenv("COLUMNS", str(width))
        patch.setenv("NO_COLOR", "1")
        assert main(arguments) == 0
    return terminal.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_every_list_fits_the_terminal_and_breaks_no_word(full, monkeypatch, arguments, width):
    text = shown(monkeypatch, arguments, width)
    assert all(len(line) <= width for line in text.splitlines())
    words = set(re.findall(r"[\w-]{8,}", text))
    whole = set(re.findall(r"[\w-]{8,}", shown(monkeypatch, arguments, 1000)))
    # An id may be shortened to a unique prefix.
    assert {
        word for word in whole if word not in words and word[:8] not in words & {i[:8] for i in (*IDS, REVISION)}
    } == set()


def test_a_narrow_list_of_runners_is_a_block_a_runner(full, monkeypatch):
    _, first, second = shown(monkeypatch, ["runners", "list", "--state", "all"], 80).split("\n\n")
    assert "Runner ID:          " + IDS[0] in first
    assert "State:              IDLE" in first
    assert second.startswith("Alias:              b\n")


def test_the_list_of_apps_is_short_unless_it_is_asked_for_all(full, monkeypatch):
    head = shown(monkeypatch, ["apps", "list"], 200).splitlines()[0]
    assert head.split() == ["Name", "Env", "Revision", "Auth", "Machine", "Type", "Runners"]
    assert "Max Concurrency" in shown(monkeypatch, ["apps", "list", "-o", "wide"], 300)


@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_a_pipe_has_the_columns_of_a_terminal(full, monkeypatch, capsys, arguments):
    on_terminal = shown(monkeypatch, arguments, 1000).splitlines()
    assert main(arguments) == 0
    heads = [line.split() for line in capsys.readouterr().out.splitlines()]
    first = 0 if "runners" not in arguments else next(n for n, line in enumerate(on_terminal) if "Runner ID" in line)
    assert on_terminal[first].split() in heads


def test_times_are_local_and_relative_on_a_terminal_and_exact_in_a_pipe(full, monkeypatch, capsys):
    local = f"{CREATED.astimezone():%Y-%m-%d %H:%M:%S}"
    assert re.search(rf"{local} \(\d+ d ago\)", shown(monkeypatch, ["keys", "list"], 200))
    main(["keys", "list"])
    assert "2026-01-31T09:00:00Z" in capsys.readouterr().out


def test_an_empty_list_says_so_on_a_terminal(controller, monkeypatch, capsys):
    controller.answers["ListUserKeys"] = key_pb2.ListUserKeysResponse()
    assert shown(monkeypatch, ["keys", "list"], 80) == ""
    assert capsys.readouterr().err == "No keys.\n"


def test_columns_are_chosen_by_name(full, capsys):
    assert main(["runners", "list", "--columns", "state,runner-id"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["State", "Runner", "ID"]
    assert [row.split() for row in rows] == [["IDLE", IDS[0]], ["PENDING", IDS[1]]]


def test_lists_are_sorted_by_value_and_not_by_text(full, capsys):
    for order, names in (("runners", ["text-to-image", "b"]), ("runners:desc", ["b", "text-to-image"])):
        assert main(["apps", "list", "--sort", order, "-o", "name"]) == 0
        assert capsys.readouterr().out.splitlines() == names
    assert main(["apps", "list", "--sort", "name", "--json"]) == 0
    assert [app["alias"] for app in json.loads(capsys.readouterr().out)["apps"]] == ["b", "text-to-image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "color"], "'color' is not a column: choose from alias, machine-type, runner-id"),
        (["--sort", "color"], "'color' is not a column: choose from alias"),
        (["--sort", "state:up"], "'state:up': write NAME, NAME:asc or NAME:desc"),
    ],
)
def test_an_unknown_column_is_wrong_usage_and_calls_nobody(full, arguments, message, capsys):
    assert main(["runners", "list", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert full.asked == []


def test_json_is_indented_for_a_person_and_one_line_in_a_pipe(full, monkeypatch, capsys):
    main(["keys", "list", "--json"])
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    indented = shown(monkeypatch, ["keys", "list", "--json"], 80)
    assert indented.startswith('{\n  "keys": [\n')
    assert json.loads(indented) == json.loads(line)


def test_names_alone(full, capsys):
    assert main(["runners", "list", "-o", "name"]) == 0
    assert capsys.readouterr().out.splitlines() == list(IDS)


def test_revisions_have_json(full, capsys):
    assert main(["apps", "list-rev", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["revisions"]
    assert found["application_id"] == REVISION
    assert found["created_at"] == "2026-01-31T09:00:00+00:00"


def test_a_watched_list_is_shown_again_when_it_changes(full):
    names = iter(["a", "a", "b"])
    latest = "b"

    def listed(_request, _context):
        return app_pb2.ListAliasesResult(aliases=[app_pb2.AliasInfo(alias=next(names, latest))])

    full.answers["ListAliases"] = listed
    with subprocess.Popen(
        [sys.executable, "-m", "fal_cli", "apps", "list", "-o", "name", "--watch", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["a\n", "b\n"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_watched_list_is_shown_as_the_controller_tells_its_changes(full):
    def watched(_request, context):
        yield WatchRunnersResponse(snapshot=True, runners=[RunnerInfo(runner_id=IDS[0])], version="v1")
        yield WatchRunnersResponse(version="v2")
        yield WatchRunnersResponse(runners=[RunnerInfo(runner_id=IDS[0], alias="b")], version="v3")
        full.gone.wait(60)

    full.answers["WatchRunners"] = watched
    with subprocess.Popen(
        [sys.executable, "-m", "fal_cli", "runners", "list", "-w", "--columns", "runner-id,alias"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = [process.stdout.readline().split() for _ in range(4)]
        assert found == [["Runner", "ID", "Alias"], [IDS[0]], ["Runner", "ID", "Alias"], [IDS[0], "b"]]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")
    assert [name for name, _ in full.asked] == ["WatchRunners"]


def test_what_a_runner_uses_is_shown_wide_and_in_json(controller, capsys):
    usage = RunnerUsage(cpu_cores=1.5, memory_bytes=3 << 29, gpu_memory_bytes=5 << 30, gpu_cores=0.25)
    runners = [RunnerInfo(runner_id="r1", usage=usage), RunnerInfo(runner_id="r2")]
    controller.answers["ListRunners"] = ListRunnersResponse(runners=runners)
    columns = "runner-id,cpu,memory,gpu,gpu-memory"
    assert main(["runners", "list", "--columns", columns, "--sort", "memory:desc"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][1:] == [
        ["r1", "150%", "1.5", "GiB", "25%", "5.0", "GiB"],
        ["r2"],
    ]
    assert main(["runners", "list"]) == 0
    assert "Memory" not in capsys.readouterr().out
    assert main(["runners", "list", "-o", "wide"]) == 0
    assert "GPU Memory" in capsys.readouterr().out
    assert main(["runners", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["runners"]
    assert first["usage"]["memory_bytes"] == 3 << 29
    assert "usage" not in second


def test_a_watched_list_clears_the_terminal_and_outlives_the_controller(full, monkeypatch, capsys):
    answers = iter(
        [
            app_pb2.ListAliasesResult(aliases=[app_pb2.AliasInfo(alias="a")]),
            (grpc.StatusCode.UNAVAILABLE, "gone"),
            (grpc.StatusCode.PERMISSION_DENIED, "revoked"),
        ]
    )

    def listed(_request, context):
        answer = next(answers)
        if isinstance(answer, tuple):
            context.abort(*answer)
        return answer

    full.answers["ListAliases"] = listed
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert main(["apps", "list", "--watch", "0.01"]) == 1
    assert terminal.getvalue().startswith("\x1b[H\x1b[2J\x1b[3JEvery 0.01 s, Ctrl-C ends.")
    assert "revoked" in capsys.readouterr().err


@pytest.mark.parametrize("count", [0, 1, 100, 101, 250])
def test_a_long_list_is_one_json_document_in_a_pipe(controller, capsys, count):
    ids = [f"runner-{number}" for number in range(count)]
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[RunnerInfo(runner_id=runner_id, alias="text-to-image") for runner_id in ids]
    )
    main(["runners", "list", "--json"])
    shown = capsys.readouterr().out
    document = json.loads(shown)
    assert [found["runner_id"] for found in document["runners"]] == ids
    assert shown == json.dumps(document) + "\n"
