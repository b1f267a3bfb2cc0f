"""`fal node` on the controller's machine. The controller only has the owner's socket."""

from __future__ import annotations

import io
import json
import os
import socketserver
import sys
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fal_cli.main import build_parser, main
from fal_cli.presentation.trusted import by_the_door, shown_trusted

HERE = {
    "pid": os.getpid(),
    "started_ticks": int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]),
    "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    "host": "127.0.0.1",
    "port": 1,
    "grpc_port": 2,
    "version": "0",
}
NODES: list[dict[str, object]] = [
    {
        "name": "box2-1",
        "host": "10.0.0.5",
        "port": 7411,
        "runners": 2,
        "trouble": "",
        "region": "us-east",
        "network": "trusted",
        "network_trouble": "requests take its door",
    },
    {
        "name": "box3-1",
        "host": "10.0.0.6",
        "port": 7411,
        "runners": 0,
        "trouble": "it is away",
        "region": "",
        "network": "door",
        "network_trouble": "",
    },
]


class Terminal(io.StringIO):
    """Play a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Owner(BaseHTTPRequestHandler):
    """Answers as the controller does."""

    asked: list[tuple[str, object]]
    joined = "box2-1"

    def address_string(self) -> str:
        return ""

    def log_message(self, *_args: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        self._answer({"nodes": NODES})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, body))
        self._answer({"name": self.joined})

    def _answer(self, found: object) -> None:
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[list[tuple[str, object]]]:
    """Provide what the controller is asked to change."""
    requests: list[tuple[str, object]] = []
    owner = type("OwnerOfThisTest", (Owner,), {"asked": requests})
    server = socketserver.ThreadingUnixStreamServer(str(tmp_path / "owner.sock"), owner)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    document = {**HERE, "owner_socket": str(tmp_path / "owner.sock")}
    (state_dir / "controller.json").write_text(json.dumps(document))
    monkeypatch.setenv("FAL_STATE_DIR", str(state_dir))
    yield requests
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], str], tuple[int, str]]:
    """Provide a function that runs a command with a person's answer. It returns the code and the messages."""

    def run(arguments: list[str], answer: str) -> tuple[int, str]:
        messages = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("NO_COLOR", "1")
            patch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
            patch.setattr(sys, "stderr", messages)
            code = main(arguments)
        return code, messages.getvalue()

    return run


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("box2-1", "Remove node box2-1? Its 2 runners end. (y/N): "),
        ("box3-1", "Remove node box3-1? (y/N): "),
    ],
)
def test_a_person_is_asked_before_a_node_is_forgotten(asked, person, name, question):
    command = ["node", "remove", name, "--force"]
    code, messages = person(command, "n")
    assert (code, messages) == (1, f"{question}Error: not confirmed: nothing was changed\n")
    assert not asked
    assert person(command, "y")[0] == 0
    assert person([*command, "--yes"], "") == (0, "")
    assert main(command) == 0, "a script is not asked"
    assert asked == [(f"/nodes/{name}/remove", {"force": True})] * 3


def test_nobody_is_asked_about_a_node_that_did_not_join(asked, person):
    code, messages = person(["node", "remove", "nosuch"], "y")
    assert (code, messages) == (1, "Error: node 'nosuch' not found: `fal node list` shows which joined\n")
    assert not asked


def test_a_node_is_drained_and_the_list_fits(asked, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["node", "drain", "box2-1"]) == main(["node", "drain", "box2-1", "--undo"]) == 0
    assert asked == [("/nodes/box2-1/drain", {"undo": False}), ("/nodes/box2-1/drain", {"undo": True})]
    capsys.readouterr()
    assert main(["node", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:] if line.startswith("box")] == [
        ["box2-1", "10.0.0.5:7411", "us-east", "trusted"],
        ["box3-1", "10.0.0.6:7411", "door", "0"],
    ]
    assert "requests take its door" in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    "command",
    [
        "node drain",
        "node remove",
        "deploy --app-name",
        "deploy --env",
        "apps explain hello --env",
        "api hello --env",
        "keys create --scope API --env",
        "keys create --scope API --for-app",
        "queue flush hello --caller-user-id",
    ],
)
def test_an_empty_name_is_none(command, capsys):
    assert main([*command.split(), ""]) == 2
    assert "it is empty: give one; an unset variable may be why" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "straight"), [("box2-1", True), ("box3-1", False)])
def test_who_has_a_node_join_learns_that_its_network_is_trusted(asked, person, capsys, monkeypatch, name, straight):
    monkeypatch.setattr(Owner, "joined", name)
    monkeypatch.setattr("getpass.getpass", lambda _question: "token")
    assert person(["node", "join", "10.0.0.5:7411"], "token")[0] == 0
    assert asked[0][0] == "/nodes"
    said = capsys.readouterr().out
    assert f"Node {name} joined" in said
    assert ("without TLS" in said) == straight


@pytest.mark.usefixtures("asked")
def test_names_are_completed():
    parser = build_parser(["node", "drain"])
    command = parser
    for word in ("node", "drain"):
        (choices,) = (action.choices for action in command._actions if isinstance(action.choices, dict))
        command = choices[word]
    (action,) = (action for action in command._actions if action.dest == "name")
    assert vars(action)["completer"](prefix="box3") == ["box3-1"]


def test_nodes_that_requests_do_not_reach_straight_are_named():
    trusted = {"networks": ["10.0.0.0/24"], "nodes": {"box2": "", "box3": "requests take its door: refused"}}
    assert shown_trusted(trusted) == [
        "Trusted:     10.0.0.0/24: requests to box2 go there without TLS",
        "             box3: requests take its door: refused",
    ]
    assert by_the_door(trusted) == {"box3": "requests take its door: refused"}
    assert shown_trusted({"networks": [], "nodes": {}}) == []
