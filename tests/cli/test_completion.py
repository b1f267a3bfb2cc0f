"""The completions that a shell offers at TAB."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from fal.config import edit
from fal_cli.main import main
from fal_grpc.v1 import app_pb2, key_pb2
from fal_grpc.v1.runner_pb2 import ListRunnersResponse, RunnerInfo

# Exits with 9 if gRPC was imported although nothing was called.
WITHOUT_GRPC = (
    "import os, sys; from fal_cli.main import main; exit_now = os._exit;"
    "os._exit = lambda code: exit_now(9 if 'grpc' in sys.modules else code); main([])"
)
PLAIN = "from fal_cli.main import main; main([])"


def offered(line, script=PLAIN):
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.dup2(1, 8); {script}"],
        env={
            **os.environ,
            "_ARGCOMPLETE": "1",
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_IFS": "\n",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fal runners lo", {"logs", "log"}),
        ("fal runners exe", {"exec", "execs"}),
        ("fal runners exec --ti", {"--timeout"}),
        ("fal runners list --output j", {"json", "jsonl"}),
        ("fal runners list --columns state,ali", {"state,alias"}),
        ("fal apps list --sort run", {"runners"}),
        ("fal help comp", {"completion"}),
    ],
)
def test_words_are_offered_without_grpc(line, words):
    assert offered(line, WITHOUT_GRPC) == words


def test_profiles_are_offered(home):
    with edit() as config:
        config.create_profile("one")
        config.create_profile("other")
    assert offered("fal profile set o") == {"one", "other"}


def test_ids_and_names_are_offered(controller, monkeypatch):
    monkeypatch.setenv("FAL_COMPLETION_SECONDS", "600")
    controller.answers["ListRunners"] = ListRunnersResponse(
        runners=[RunnerInfo(runner_id="83dd5028"), RunnerInfo(runner_id="83ee"), RunnerInfo(runner_id="9")]
    )
    controller.answers["ListAliases"] = app_pb2.ListAliasesResult(aliases=[app_pb2.AliasInfo(alias="hello")])
    controller.answers["ListUserKeys"] = key_pb2.ListUserKeysResponse(user_keys=[key_pb2.UserKeyInfo(key_id="k-1")])
    assert offered("fal runners stop 83") == {"83dd5028", "83ee"}
    assert offered("fal apps logs ") >= {"hello"}
    assert offered("fal keys revoke k") == {"k-1"}


@pytest.mark.parametrize("line", ["fal runners stop ", "fal apps delete h", "fal profile set "])
def test_no_controller_and_no_key_offer_nothing(line, monkeypatch):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("FAL_GRPC_HOST", f"127.0.0.1:{bound.getsockname()[1]}")
        assert [word for word in offered(line) if not word.startswith("-")] == []
        monkeypatch.setenv("FAL_KEY", "id:secret")
        assert [word for word in offered(line) if not word.startswith("-")] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_prints_the_shells_code(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "fal" in capsys.readouterr().out
