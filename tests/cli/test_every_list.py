"""The promises of all list commands. They have the same options, and lines that fit the terminal."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import pytest
import tomlkit
import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth

from fal.config import edit, own_path
from fal_cli.ids import _FULL_ID
from fal_cli.main import main
from fal_cli.parser import FalParser
from fal_cli.presentation.folding import display_width
from fal_grpc.v1 import (
    account_pb2,
    app_pb2,
    audit_pb2,
    drain_pb2,
    environment_pb2,
    exec_pb2,
    key_pb2,
    node_pb2,
    notice_pb2,
    request_pb2,
    revision_pb2,
    runner_pb2,
    secret_pb2,
)
from tests.support.commands import all_commands

# The command, the method that it calls, its answer, and the answer's items.
CALLED: dict[tuple[str, ...], tuple[str, Any, str, Any]] = {
    ("apps", "list"): ("ListAliases", app_pb2.ListAliasesResult, "aliases", app_pb2.AliasInfo),
    ("apps", "list-rev"): (
        "ListApplications",
        revision_pb2.ListApplicationsResult,
        "applications",
        revision_pb2.ApplicationInfo,
    ),
    ("apps", "runners"): ("ListAliasRunners", runner_pb2.ListAliasRunnersResponse, "runners", runner_pb2.RunnerInfo),
    ("runners", "list"): ("ListRunners", runner_pb2.ListRunnersResponse, "runners", runner_pb2.RunnerInfo),
    ("runners", "types"): ("ListNodes", node_pb2.ListNodesResponse, "machine_types", node_pb2.MachineType),
    ("runners", "execs"): ("ListExecs", exec_pb2.ListExecsResponse, "execs", exec_pb2.ExecInfo),
    ("drains", "list"): ("ListDrains", drain_pb2.ListDrainsResponse, "drains", drain_pb2.Drain),
    ("notices", "list"): ("ListNotices", notice_pb2.ListNoticesResponse, "notices", notice_pb2.Notice),
    ("secrets", "list"): ("ListSecrets", secret_pb2.ListSecretsResponse, "secrets", secret_pb2.Secret),
    ("environments", "list"): (
        "ListEnvironments",
        environment_pb2.ListEnvironmentsResponse,
        "environments",
        environment_pb2.EnvironmentInfo,
    ),
    ("teams", "list"): ("ListAccounts", account_pb2.ListAccountsResponse, "accounts", account_pb2.AccountInfo),
    ("teams", "members"): ("ListMembers", account_pb2.ListMembersResponse, "members", account_pb2.Member),
    ("audit", "list"): ("ListAuditEntries", audit_pb2.ListAuditEntriesResponse, "entries", audit_pb2.AuditEntry),
    ("requests", "list"): ("ListRequests", request_pb2.ListRequestsResponse, "requests", request_pb2.RequestRecord),
    ("keys", "list"): ("ListUserKeys", key_pb2.ListUserKeysResponse, "user_keys", key_pb2.UserKeyInfo),
}
# The command, the path that it asks for, and the texts of an item.
ASKED: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    ("files", "list", "/data"): ("/files/list//data", ("path", "updated_time")),
    ("queue", "list", "shop"): (
        "/applications/local/shop/queue/requests",
        ("request_id", "caller", "error", "error_type", "path"),
    ),
}
OPTIONS = {"--output", "-o", "--json", "--columns", "--sort", "--watch", "-w"}
FORMS = ["pretty", "json", "yaml", "jsonl", "wide", "name"]
LONG_AGO = datetime(2020, 1, 31, 9, tzinfo=UTC)

# The characters of this Python's Unicode; newer ones may have another width.
_CHARACTERS = st.characters(codec="utf-8").filter(lambda char: unicodedata.category(char) != "Cn")
_WORDS = ["日本語", "🚀", "❤\ufe0f", "👩\u200d🚀", "🇩🇪", "e\u0301", "\x1b[2J", "\t", "\u202e", "(a", "b)", "", "plain"]
_LONG = ["x" * 500, "日" * 150, " " * 90, "   indented", "83dd5028-24bc-4895-9c1a-0d6f4a4e1b7d"]
TEXTS = st.one_of(
    st.text(_CHARACTERS, max_size=20),
    st.lists(st.sampled_from(_WORDS), max_size=30).map(" ".join),
    st.sampled_from(["", *_LONG]),
)


class Terminal(io.StringIO):
    """A fake terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def lists() -> dict[tuple[str, ...], FalParser]:
    """Return the commands that list something, found by their help."""
    return {path: parser for path, parser in all_commands() if (parser.description or "").startswith("List")}


def arguments(path: tuple[str, ...]) -> list[str]:
    return [*path, *(["shop"] if path in {("apps", "runners"), ("teams", "members")} else [])]


# It lists files of the wheel, which `test_skills` covers.
IN_THE_WHEEL = {("skills", "list")}
EVERY = [*map(arguments, CALLED), *map(list, ASKED), ["profile", "list"]]


def test_these_are_all_lists() -> None:
    assert {tuple(words[:2]) for words in EVERY} | IN_THE_WHEEL == set(lists())


@pytest.mark.parametrize("path", lists(), ids=" ".join)
def test_every_list_has_the_same_options(path: tuple[str, ...]) -> None:
    parser = lists()[path]
    assert set(parser._option_string_actions) >= OPTIONS
    assert list(parser._option_string_actions["--output"].choices or ()) == FORMS


@pytest.fixture
def filled(controller, monkeypatch, home) -> Callable[[list[str]], None]:
    """Return a function that has two items listed. The controller lists them, or the file of profiles."""

    def fill(words: list[str]) -> None:
        if words[0] == "profile":
            with edit() as config:
                config.create_profile("one")
                config.create_profile("two")
            return
        method, answer, field, item = CALLED[tuple(words[:2])]
        items = [plain(item(), name) for name in ("one", "two")]
        controller.answers[method] = answer(**{field: items})

    return fill


def plain(message: Message, name: str) -> Message:
    """Fill a message's texts with a name, and its times with LONG_AGO."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, name)
        elif field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
            getattr(message, field.name).FromDatetime(LONG_AGO)
    return message


@pytest.fixture
def listed(filled, rest_of, request) -> Callable[[list[str]], None]:
    def fill(words: list[str]) -> None:
        if tuple(words) in ASKED:
            rest_of(words, [{}, {}])
        else:
            filled(words)

    return fill


@pytest.fixture
def rest_of(request) -> Callable[[list[str], list[dict[str, object]]], None]:
    """Return a function that has a REST controller list items. An item `{}` has no hostile texts."""

    def fill(words: list[str], items: list[dict[str, object]]) -> None:
        rest = request.getfixturevalue("rest")
        path, _ = ASKED[tuple(words)]
        rest.answers |= {"/users/current": {"nickname": "local"}, path: documents(words, items)}

    return fill


def documents(words: list[str], items: list[dict[str, object]]) -> object:
    """Return the answer of a REST controller."""
    base: dict[str, object]
    if words[0] == "files":
        base = {"path": "/data/one", "size": 5, "is_file": True, "updated_time": LONG_AGO.isoformat()}
        return [{**base, **item} for item in items]
    base = {
        "request_id": "one", "app": "shop", "method": "POST", "path": "/", "caller": None, "priority": "normal",
        "state": "IN_QUEUE", "attempt": 1, "created_at": LONG_AGO.isoformat(), "dead": False,
    }  # fmt: skip
    return {"requests": [{**base, **item} for item in items]}


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    code = main(words)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_list_has_every_form(listed, words: list[str], capsys) -> None:
    listed(words)
    (items,) = json.loads(printed(capsys, [*words, "--json"])).values()
    assert len(items) == 2
    assert json.loads(printed(capsys, [*words, "-o", "json"])) == yaml.safe_load(
        printed(capsys, [*words, "-o", "yaml"])
    )
    assert [json.loads(line) for line in printed(capsys, [*words, "-o", "jsonl"]).splitlines()] == items
    names = printed(capsys, [*words, "-o", "name"]).splitlines()
    assert len(names) == 2
    assert all(names)
    head = next(line for line in printed(capsys, [*words, "-o", "wide"]).splitlines() if ": " not in line)
    last = head.split("  ")[-1].strip().lower().replace(" ", "-")
    chosen = printed(capsys, [*words, "--columns", last]).splitlines()
    assert chosen[0].lower().replace(" ", "-") == last
    assert len(chosen) == 3
    assert printed(capsys, [*words, "--sort", f"{last}:desc", "-o", "name"]).split() in (names, names[::-1])


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_times_are_iso_for_programs(listed, words: list[str], capsys) -> None:
    listed(words)
    table = printed(capsys, [*words, "-o", "wide"])
    if "2020" in table:
        assert "2020-01-31T09:00:00Z" in table
    (items,) = json.loads(printed(capsys, [*words, "--json"])).values()
    for item in items:
        for text in item.values():
            if str(text).startswith("2020"):
                assert datetime.fromisoformat(text) == LONG_AGO


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_list_can_be_watched(listed, words: list[str], monkeypatch, home) -> None:
    listed(words)
    shown = Shown(3)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", shown)
        with pytest.raises(EnoughShown):
            main([*words, "--watch", "0.01"])
    assert shown.getvalue().count("Every 0.01 s, Ctrl-C ends.") == 3


class EnoughShown(BaseException):
    """Ends a watched list, like a signal."""


class Shown(Terminal):
    """A terminal that ends the command after this many clears."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def flush(self) -> None:
        self._left -= 1
        if not self._left:
            raise EnoughShown


def shown(words: list[str], width: int) -> str:
    terminal = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", io.StringIO())
        patch.setenv("COLUMNS", str(width))
        patch.setenv("NO_COLOR", "1")
        assert main(words) == 0
    return terminal.getvalue()


@cache
def words_of_titles(path: tuple[str, ...]) -> set[str]:
    (columns,) = (action for action in lists()[path]._beyond if "--columns" in action.option_strings)
    return set(str(columns.help).partition(": ")[2].rstrip(".").replace(", ", "-").split("-"))


def check(words: list[str], width: int) -> None:
    """Compare the same list on two terminals: this width, and very wide."""
    wide = shown(words, 10**6)
    text = shown(words, width)
    lines = text.split("\n")
    for line in lines:
        cells = wcswidth(line)
        assert cells >= 0, f"{line!r} has a control character"
        assert cells <= width, f"{line!r} is {cells} cells wide"
    # Blocks leave out the titles of empty cells.
    titles = words_of_titles(tuple(words[:2]))
    for word in wide.split():
        if _FULL_ID.fullmatch(word):
            word = word[:8]
        if display_width(word) <= width - 2 and word.lower() not in titles:
            assert any(word in line for line in lines), f"{word!r} is broken"
    if max(map(display_width, wide.split("\n"))) <= width:
        assert text == wide


def filled_messages(kind: type[Message], depth: int = 2) -> st.SearchStrategy[Message]:
    """Make messages with hostile texts in all fields."""
    described = cast("list[FieldDescriptor]", kind.DESCRIPTOR.fields)
    fields = {field.name: value for field in described if (value := _value(field, depth)) is not None}
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: kind(**given))


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[object] | None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return None
    one = _scalar(field, depth)
    return st.lists(one, max_size=3) if one is not None and field.is_repeated else one


def _scalar(field: FieldDescriptor, depth: int) -> st.SearchStrategy[object] | None:
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return st.floats(0, 1e6)
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP):
        return None
    if field.message_type is None:
        return st.integers(0, 2**31 - 1)
    if field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
        return st.datetimes(datetime(2000, 1, 1), datetime(2020, 1, 1)).map(_timestamp)  # noqa: DTZ001
    if not depth or field.message_type.full_name.startswith("google."):
        return None
    return filled_messages(GetMessageClass(field.message_type), depth - 1)


def _timestamp(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found


HOSTILE = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
WIDTHS = st.integers(40, 200)


@pytest.mark.parametrize("path", CALLED, ids=" ".join)
@given(data=st.data(), width=WIDTHS)
@HOSTILE
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(path, controller, data, width: int) -> None:
    method, answer, field, item = CALLED[path]
    items = data.draw(st.lists(filled_messages(item), max_size=3))
    controller.answers[method] = answer(**{field: items})
    check([*arguments(path), *data.draw(st.sampled_from([[], ["-o", "wide"]]))], width)


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
@given(data=st.data(), width=WIDTHS)
@HOSTILE
def test_files_and_requests_fit_too(words, rest_of, data, width: int) -> None:
    _, texts = ASKED[words]
    rest_of(words, data.draw(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(texts, TEXTS)), max_size=3)))
    check([*words, *data.draw(st.sampled_from([[], ["-o", "wide"]]))], width)


@given(
    names=st.lists(TEXTS.filter(lambda name: name not in {"", "__internal__"}), unique=True, max_size=3), width=WIDTHS
)
@HOSTILE
def test_profiles_fit_too(home, names: list[str], width: int) -> None:
    document = tomlkit.dumps({name: {"host": "x"} for name in names})
    own_path(home / "config.toml").write_text(document, encoding="utf-8", newline="")
    check(["profile", "list"], width)
