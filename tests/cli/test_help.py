"""Help texts, usage errors, and the imports that they need."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fal_cli.main import build_parser, main
from fal_cli.parser import FalParser, UnusedParser
from fal_cli.registry import COMMANDS
from tests.support.commands import all_commands, commands_of

# The specified help texts of `fal runners`.
HELP = {
    text.partition("\n")[0].split(" [")[0].removeprefix("Usage: fal runners").strip(): text
    for text in re.split(r"\n(?=Usage: )", Path(__file__).with_name("runner_help.txt").read_text())
}


def unwrapped(text: str) -> str:
    """Return the text without line breaks, to compare words, order and headings."""
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("command", HELP)
def test_help_of_runners_is_the_specified_one(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["runners", *command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    published, _, _ = shown.partition("\n\nBeyond the published command:")
    assert unwrapped(published) == unwrapped(HELP[command])
    usage, _, _ = HELP[command].partition("\n\n")
    assert shown.startswith(usage + "\n\n"), "the usage is wrapped as specified, too"


@pytest.mark.parametrize("command", HELP)
def test_help_of_runners_is_the_specified_one_line_by_line_on_a_wide_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    main(["runners", *command.split(), "--help"])
    published, _, _ = capsys.readouterr().out.partition("\n\nBeyond the published command:")
    _, _, shown = published.partition("\n\n")
    _, _, expected = HELP[command].partition("\n\n")
    assert shown.strip() == expected.strip()


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ([], ["attach", "execs", "get", "gpus"]),
        (["list"], ["-o {pretty,json,yaml,jsonl,wide,name}", "--columns NAME", "--sort NAME"]),
        (["logs"], ["--source {build,system,stdout,stderr}", "--request-id ID", "-o {pretty,json,yaml,jsonl}"]),
        (["stop"], ["-r, --replace", "--grace SECONDS"]),
        (["exec"], ["--timeout SECONDS", "--cwd DIR", "--env NAME=VALUE", "--keep", "--detach"]),
    ],
)
def test_what_the_published_client_lacks_follows_its_help(command, names, capsys):
    assert main(["runners", *command, "--help"]) == 0
    _, _, beyond = capsys.readouterr().out.partition("\n\nBeyond the published command:\n")
    lines = [line.strip() for line in beyond.splitlines()]
    for name in names:
        assert any(line.startswith(name) for line in lines), name


@pytest.mark.parametrize("alias", ["machine", "runners"])
def test_log_is_another_name_of_logs(alias, capsys):
    assert main([alias, "log", "--help"]) == 0
    assert "Show logs for a runner." in capsys.readouterr().out


def test_the_root_help_names_every_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: fal [-h] [--version] command ...")
    for command in COMMANDS:
        assert re.search(rf"^  {command.name}\b.*", shown, re.MULTILINE)
        assert command.help in shown


def test_the_root_help_says_what_fal_is_and_fits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main([])
    shown = capsys.readouterr().err
    assert "fal deploys Python apps to a controller" in shown
    assert "Documentation: https://" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("words", [[], ["deploy"], ["runners", "exec"], ["apps", "list"]])
def test_fal_help_is_the_help_of_the_command(words, capsys):
    assert main(["help", *words]) == 0
    shown = capsys.readouterr().out
    assert main([*words, "--help"]) == 0
    assert shown == capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_under_all_of_its_names(command, capsys):
    for name in (command.name, *command.aliases):
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: fal {command.name} ")


def test_no_arguments_show_the_help_as_an_error(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: fal ")


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("fal-grpc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runers"], "unknown command 'runers'; did you mean 'runners'?"),
        (["runners", "lst"], "unknown command 'lst'; did you mean 'list'?"),
        (["runners", "bogus"], "choose from stop, kill, list"),
        (["zzz"], "unknown command 'zzz'; `fal help` lists the commands"),
        (["login"], "unknown command 'login': keys and hosts are stored in profiles"),
        (["auth", "login"], "unknown command 'login': keys and hosts are stored in profiles"),
        (["create"], "run `fal deploy FILE.py`"),
        (["teams", "set", "crew"], "`--team NAME` acts for a team"),
        (["tail"], "`fal logs` shows the logs of all apps"),
        (["ps"], "`fal apps list` and `fal runners list`"),
        (["help", "zzz"], "unknown command 'zzz'"),
        (["runners", "exec", "r", "-t", "--", "x"], "unrecognized arguments before --: -t"),
        (["runners", "zzz"], "choose from stop, kill, list, logs, log, shell, exec"),
        (["runners"], "the following arguments are required: command"),
        (["runners", "list", "--stat", "idle"], "unknown option --stat; did you mean --state?"),
        (["runners", "stop", "--replcae", "r"], "unknown option --replcae; did you mean --replace?"),
        (["keys", "create", "--scoep=ADMIN"], "unknown option --scoep; did you mean --scope?"),
        (["apps", "scale", "--max-conc", "3"], "unknown option --max-conc; did you mean --max-concurrency?"),
        (["deploy", "app.py", "--xyz"], "unknown option --xyz"),
        (["--json", "apps", "list"], "unknown option --json; the options of a command go after its name"),
        (["runners", "exec", "r", "--cdw", "/", "--", "ls"], "unknown option --cdw; did you mean --cwd?"),
        (["runners", "list", "--state", "asleep"], "invalid choice: 'asleep'"),
        (["runners", "list", "--output", "xml"], "choose from 'pretty', 'json', 'yaml', 'jsonl'"),
        (["runners", "list", "--since", "3 days"], "'3 days' is older than the limit of 24 hours"),
        (["runners", "list", "--since", "2999-01-01"], "'2999-01-01' is in the future"),
        (["runners", "logs", "-n", "4294967296", "r"], "'4294967296' is not a number of lines"),
        (["apps", "scale", "a", "--keep-alive", "4294967296"], "argument --keep-alive: '4294967296' is too big"),
        (["apps", "scale", "a", "--keep-alive", "1.5"], "argument --keep-alive: '1.5' is not a whole number"),
        (["runners", "logs", "r", "--search", "\udcff"], "argument search: '\\udcff' is not valid UTF-8"),
        (["runners", "exec", "r", "--env", "A=\udcff", "--", "ls"], "argument env: '\\udcff' is not valid UTF-8"),
        (["secrets", "set", "A=\udcff"], "argument secrets: 'A=\\udcff' is not valid UTF-8"),
        (["runners", "list", "--since", "soon"], "'soon' is not a time"),
        (["runners", "logs", "--lines", "many", "r"], "'many' is not a number of lines"),
        (["runners", "logs", "-n", "0", "r"], "'0' is not a number of lines"),
        (["runners", "logs", "r", "--since", "1m", "--until", "1h"], "--until is before --since"),
        (["runners", "logs", "r", "-f", "--until", "now"], "leave out --until"),
        (["runners", "stop"], "the following arguments are required: id"),
        (["runners", "exec", "r"], "no command is named: fal runners exec ID -- COMMAND"),
        (["runners", "exec", "r", "--"], "no command is named"),
        (["runners", "exec", "r", "ls", "-l"], "unrecognized arguments: -l; the command goes after --"),
        (["keys", "create", "--scope", "ROOT"], "invalid choice: 'ROOT'"),
        (["keys", "create", "--permission", ","], "--permission needs the name"),
        (["secrets", "set", "=x"], "a secret has no name before '='"),
        (["secrets", "set", "A", "B"], "only one secret can be read from standard input"),
        (["up", "--port", "99999"], "'99999' is not a port"),
        (["deploy", "x.py", "--annotation", "novalue"], "--annotation 'novalue' is not of the form KEY=VALUE"),
        (["deploy", "x.py", "--attach", "--detach"], "not allowed with argument --attach"),
        (["run", "x.py", "--exposed-port", "1"], "are for --local"),
        (["runners", "stop", "", "--host", "127.0.0.1:1"], "runner_id: must be an id that is not empty"),
        (["apps", "scale", "a", "--keep-alive", "-5", "--host", "127.0.0.1:1"], "keep_alive: must be from 0"),
        (["run"], "the following arguments are required: func_ref"),
    ],
)
def test_wrong_usage_is_reported_on_stderr_with_code_2(arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("FAL_KEY", "id:secret")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Error: " in captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["runners", "--help"], ["completion", "bash"], ["--version"]])
def test_commands_without_calls_import_neither_grpc_nor_the_sdk(arguments):
    script = (
        "import sys; from fal_cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'grpc', 'google.protobuf', 'fal.api', 'yaml', 'tomlkit', 'asyncio', 'tarfile', 'fal_server'};"
        "heavy &= set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_command_is_declared_in_full_if_it_is_named_and_else_listed():
    whole = dict(all_commands())
    for words, parser in whole.items():
        named = dict(commands_of(words))
        assert named[words].format_help() == parser.format_help()
        used = [path for path, found in named.items() if not isinstance(found, UnusedParser)]
        assert len(used) < len(whole) / 3, words
    groups = {words[0] for words in whole if len(words) > 1}
    for group in groups:
        assert help_of(group, [group]) == help_of(group, None)


def help_of(group: str, words: list[str] | None) -> str:
    (commands,) = (action for action in build_parser(words)._actions if action.nargs == argparse.PARSER)
    assert isinstance(commands.choices, dict)
    found = commands.choices[group]
    assert isinstance(found, FalParser)
    return found.format_help()


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_a_paragraph_is_filled_and_examples_keep_their_lines(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["runners", "port-forward", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\n  fal runners port-forward 83dd5028 8000:app 5678\n" in text
    *paragraph, _last = text.partition("\nA port is")[2].partition("\n\n")[0].splitlines()
    # No line is so short that it must be the rest of a longer one.
    assert all(columns / 2 < len(line) <= columns for line in paragraph[1:])
