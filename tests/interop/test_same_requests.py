"""Both clients send a foreign controller the same requests, field by field."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.commands import DIFFERENCES
from tests.interop.conftest import SAMPLES
from tests.interop.records import covers
from tests.interop.requests import Foreign, comparable, differences, foreign
from tests.support.controller import BIN
from tests.support.official import Official, Terminal

COMMANDS = """
runners list
runners list --since 1h --state all
runners stop r
runners stop r --replace
runners kill r
runners exec r -- ls -l
runners exec -it r -- ls -l
apps list
apps list --filter an --sort-by-runners --regions us-east
apps list --env stage
apps list-rev
apps list-rev --env stage
apps list-rev an-app --env stage
apps set-rev an-app r --auth public --strategy recreate
apps set-rev an-app r --env stage
apps scale an-app --keep-alive 0 --max-multiplexing 2 --max-concurrency 3 --min-concurrency 0 --concurrency-buffer 1
apps scale an-app --concurrency-buffer-perc 10 --scaling-delay 5 --request-timeout 6 --request-start-timeout 7
apps scale an-app --startup-timeout 8 --machine-types XS S --regions us-east eu-west --env stage
apps scale an-app
apps rollout an-app
apps rollout an-app --force --env stage
apps runners an-app
apps runners an-app --since 2h --env stage
apps runners an-app --state idle running
apps delete an-app
apps delete an-app --env stage
apps delete-rev r
keys create --preset FULL --desc d
keys create --preset SERVERLESS
keys create --scope API --alias a
keys create --permission a:b --permission c:d,e:f
keys list
keys revoke k
secrets set A=b C=d=e
secrets set A=b --not-exposed-by-default --env stage
secrets list
secrets list --env stage
secrets unset A
secrets unset A --env stage
environments list
environments create stage --description d
environments create stage
environments delete stage --yes
deploy @/tiny.py
deploy @/tiny.py --app-name n --auth private --strategy recreate --reset-scale --message m --annotation a=b --no-cache
deploy @/tiny.py --attach --env stage
deploy @/tiny.py --detach --no-scale --auth shared
deploy @/functions.py::counted
deploy @/functions.py::served --auth public
deploy @/options.py::EveryOption
deploy @/options.py::EveryOption --app-name other --env stage --auth public
deploy @/options.py::OldForm
deploy @/options.py::InAnImage
deploy @/options.py::with_options
deploy @/options.py::in_conda
deploy @/options.py::function_in_an_image
deploy by-file
deploy by-file --env stage --message m
deploy by-entry
deploy by-image
run @/functions.py::counted
run @/functions.py::counted --machine-type S --forward-compat --no-cache --env stage --auth private --app-name z
run @/tiny.py
run @/functions.py::served --limit-max-requests 3
run @/options.py::EveryOption --app-name once
run @/options.py::InAnImage
run @/options.py::in_conda
run by-file
run by-entry
"""

# One process for all commands of the official client, because its start takes a second.
THEIRS = """
import json, sys
from fal.cli.main import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit:
        pass
    with open(sys.argv[2], "a") as records:
        records.write('{"method": "end"}\\n')
"""


@pytest.fixture(scope="module")
def peer(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Foreign]:
    """Run a foreign controller."""
    with foreign(python, tmp_path_factory.mktemp("foreign")) as running:
        yield running


@pytest.fixture(scope="module")
def client(peer: Foreign, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Official:
    """Return the official client, with a key that is not checked."""
    home = tmp_path_factory.mktemp("clients-home")
    return Official(python=python, home=home, host=peer.host, key="id:secret")


def parts(command: str) -> list[str]:
    return shlex.split(command.replace("@/", f"{SAMPLES}/"))


def our_environment(client: Official) -> dict[str, str]:
    """Return the same variables, without those of the official client only."""
    own = {name: value for name, value in client.environment.items() if name != "ISOLATE_TEST_MODE"}
    return {**own, "PATH": os.environ["PATH"]}


@pytest.fixture(scope="module")
def sent_by_theirs(peer: Foreign, client: Official) -> dict[str, list[dict[str, Any]]]:
    """Return the official client's requests, by command."""
    commands = COMMANDS.strip().splitlines()
    arguments = json.dumps([parts(command) for command in commands])
    client.run("python", "-c", THEIRS, arguments, str(peer.records), cwd=SAMPLES)
    sent: dict[str, list[dict[str, Any]]] = {command: [] for command in commands}
    waiting = iter(commands)
    command = next(waiting)
    for request in peer.take():
        if request["method"] == "end":
            command = next(waiting, "")
        else:
            sent[command].append(comparable(request))
    assert command == "", f"theirs ended at {command}"
    return sent


def expected(command: str, difference: str) -> bool:
    return any(
        re.match(known.commands, command) and known.place and re.search(known.place, difference)
        for known in DIFFERENCES
    )


def called(request: dict[str, Any]) -> str:
    """Return the method of a request, and its entry point."""
    return f"{request['method']} {request['request'].get('entrypoint', '')}".strip()


def unexplained(command: str, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    """Return the differences that no listed entry explains. Requests that only they make do not count."""
    extra = [known.extra for known in DIFFERENCES if known.extra and re.match(known.commands, command)]
    kept, other = (
        [request for request in sent if not any(re.fullmatch(one, called(request)) for one in extra)]
        for sent in (theirs, ours)
    )
    return [difference for difference in differences(kept, other) if not expected(command, difference)]


@covers("same requests")
@pytest.mark.parametrize("command", COMMANDS.strip().splitlines())
def test_both_send_the_same(
    peer: Foreign, client: Official, sent_by_theirs: dict[str, list[dict[str, Any]]], command: str
) -> None:
    done = subprocess.run(
        [BIN / "fal", *parts(command)],
        env=our_environment(client),
        cwd=SAMPLES,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    ours = [comparable(request) for request in peer.take()]
    assert bool(sent_by_theirs[command]) == (command != "apps scale an-app")
    found = unexplained(command, sent_by_theirs[command], ours)
    assert not found, "\n".join(found)


@covers("same requests")
@pytest.mark.parametrize("command", ["runners shell r", "runners exec -it r -- ls -l"])
def test_both_send_the_same_from_a_terminal(peer: Foreign, client: Official, command: str) -> None:
    sent = []
    for program, environment in (
        (client.python.parent / "fal", client.environment),
        (BIN / "fal", our_environment(client)),
    ):
        with Terminal([str(program), *parts(command)], environment, client.home) as terminal:
            assert terminal.wait() == 0
        sent.append([comparable(request) for request in peer.take()])
    theirs, ours = sent
    assert theirs[0]["request"]["tty"] is True
    assert differences(theirs, ours) == []
