"""Every command of the published command line has a row in the tables, and does what its row says.

Most commands have tests in the files of their nouns. Here they follow one another in a home where our `fal up` has
been: the exit code of each, and what its first lines say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.interop.commands import FAL
from tests.interop.conftest import up_was_here
from tests.support.controller import Controller
from tests.support.official import Official

LEAVES = """
import argparse, json
from fal.cli.main import _get_main_parser

def leaves(parser, path):
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(path)
    for group in groups:
        first = {}
        for name, child in group.choices.items():
            first.setdefault(id(child), (name, child))
        for name, child in first.values():
            yield from leaves(child, [*path, name])

print(json.dumps(sorted(leaves(_get_main_parser(), []))))
"""
FIRST_LINES = 8


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command, its exit code, and a pattern of its first lines; {names} are replaced in both."""

    command: str
    code: int = 0
    says: str = ""


NO_LOGIN = "You must be authenticated"
STEPS = (
    Step(command="doctor", says="isolate"),
    Step(command="completion bash", says="#compdef fal"),
    Step(command="auth whoami", says="'local'"),
    Step(command="auth logout", says="not logged in"),
    Step(command="account list", code=1, says=NO_LOGIN),
    Step(command="account set other", code=1, says=NO_LOGIN),
    Step(command="account unset", code=1, says=NO_LOGIN),
    Step(command="environments create walked --description words", says="Created environment 'walked'"),
    Step(command="environments list", says="walked"),
    Step(command="environments delete walked --yes", says="Deleted environment 'walked'"),
    Step(command="secrets set WALKED=value"),
    Step(command="secrets list", says="WALKED"),
    Step(command="secrets unset WALKED"),
    Step(command="keys create --scope API --desc walked", says="FAL_KEY="),
    Step(command="keys list", says="walked"),
    Step(command="keys revoke {key}"),
    Step(command="apps list", says="tiny"),
    Step(command="apps list-rev tiny", says="{revision}"),
    Step(command="apps scale tiny --keep-alive 301", says="301"),
    Step(command="api local/tiny text=word", says="word1st"),
    Step(command="apps runners tiny", says="{runner}"),
    Step(command="runners list", says="{runner}"),
    Step(command="runners exec {runner} -- echo inside", says="inside"),
    Step(command="queue size tiny", says="0"),
    Step(command="runners kill {runner}"),
    Step(command="files upload {folder}/one.txt walked/one.txt"),
    Step(command="files list walked", says="one.txt"),
    Step(command="files rm walked"),
)


@pytest.fixture(scope="module")
def walker(client: Official, secure: Controller, tmp_path_factory: pytest.TempPathFactory) -> Official:
    """Return the published client in a home of its own, where our `fal up` has been."""
    found = replace(client, home=tmp_path_factory.mktemp("walked"))
    assert found.environment["HOME"] == str(found.home)
    up_was_here(secure, found.home)
    return found


def test_every_command_has_a_row(walker: Official) -> None:
    rows = {row.name.partition(" -")[0].partition(" (")[0] for row in FAL}
    rows |= {
        f"{noun} {verb.strip()}" for row in rows for noun, _, verbs in [row.partition(" ")] for verb in verbs.split(",")
    }
    assert set(walker.script(LEAVES)) - rows == set()


def test_each_ends_with_its_code_and_says_its_lines(walker: Official, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one\n")
    (app,) = [app for app in walker.json("apps", "list")["apps"] if app["alias"] == "tiny"]
    names = {"folder": str(tmp_path), "revision": app["revision"]}
    wrong = []
    for step in STEPS:
        done = walker.fal(*step.command.format(**names).split(), check=False)
        first = "\n".join((done.stdout + done.stderr).splitlines()[:FIRST_LINES])
        key = re.search(r"FAL_KEY='([\w-]+):", done.stdout)
        names |= {"key": key[1]} if key else {}
        if step.command.startswith("api "):
            names["runner"] = walker.json("apps", "runners", "tiny")["runners"][0]["runner_id"]
        if done.returncode != step.code or step.says.format(**names) not in first:
            wrong.append(f"fal {step.command}: code {done.returncode}, not {step.code}, or not {step.says!r}:\n{first}")
    assert not wrong, "\n\n".join(wrong)
