"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORDS_OF_A_SENTENCE = 12
# A sentence ends at a period before a word that can begin one.
SENTENCE = re.compile(r".*?[.!?:](?=\s+[A-Z`\"(]|$)")
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
PRODUCT = ("fal", "fal_grpc", "fal_mcp", "fal_server", "fal_runner", "cli")

# Product files that are gone: their names without .py, with a folder before those that are fine elsewhere.
OLD_FILES = re.compile(
    r".*/(plane|file_plane|whole|signal|starts|carrying|carrier|hangup|call|answers|site|door|bridge|form|line|insight|"
    r"launching|attaching|reading|text|claim|unused|drafts|stopping|own_log|collector|ahead|spares|mark|documented|exits|"
    r"completing|interfaces|rooms?|jail)|cli/fal_cli/.*failures|fal_server/http/.*depot"
)

# Names of classes, functions and methods ("Class.method") that are gone: folder -> old name -> better name.
OLD_NAMES = {
    "": {
        "Plane": "Controller",
        "SignedCall": "OutboundCall",
        "WebhookClient": "OutboundClient",
        "HttpWebhookClient": "HttpOutboundClient",
        "FilePlane": "FileServices",
        "Signal": "ChangeNotifier",
        "Starts": "StartFailures",
        "carry": "run_attempt",
        "_Again": "Retry",
        "_Still": "Requeue",
        "_End": "Done",
        "Carrier": "ConnectionHandle",
        "_Parcel": "_Bundle",
        "Depot": "RelayContext",
        "Sink": "ResponseDriver",
        "Asker": "ResponseListener",
        "Hangups": "DisconnectWatcher",
        "Refusal": "HttpError",
        "objection": "validate",
        "FrontDoor": "Listener",
        "_Visitor": "_ProtocolSniffer",
        "Bridge": "AsgiAdapter",
        "take_back": "reattach",
        "condemn": "kill",
        "dismiss": "stop",
        "Live": "LiveRequest",
        "judge": "decide_retry",
        "_reading": "classify",
        "Verdict": "RetryDecision",
        "Course": "SimulationResult",
        "ripe": "eligible",
        "Attachment": "RolloutWatcher",
        "Claim": "ControllerLock",
        "Uses": "ContentDirectory",
        "DiskDraft": "StagedFile",
        "Words": "Text",
        "Moment": "UtcTimestamp",
        "leave_alone_what_lasts": "freeze_startup_objects",
        "Ahead": "PrewarmedProcess",
        "misfit": "incompatibility",
        "begin_anew": "restart_cold",
        "Spare": "WarmShim",
        "Spares": "WarmPool",
        "Warmth": "WarmKey",
        "Teller": "ResultChannel",
        "Told": "WorkerMessage",
        "Scribe": "OutputRecorder",
        "Joint": "TailFollowJoin",
        "LogQuestion": "LogQuery",
        "question": "log_query",
        "not_listed": "runner_not_found",
        "Living": "HasLifespan",
        "_Frame": "_RequestMiddleware",
        "complain": "print_error",
        "_told": "_reported",
        "Rooms": "Sandboxes",
        "BuildRoom": "BuildSandbox",
        "BuildRooms": "BuildSandboxes",
        "has_room": "has_sandbox",
        "enter_room": "enter_sandbox",
        "seen_in_room": "seen_in_sandbox",
        "lay_out_room": "lay_out_sandbox",
    },
    "cli": {"say": "print_line", "note": "print_note"},
    "fal_server": {
        "Call": "AppRequest",
        "Line": "FairQueue",
        "whole": "run_to_completion",
        "Fleet.close": "stop_routing",
        "Fleet.acknowledge": "confirm_unrouted",
        "Fleet.reject": "fail_start",
        "RolloutWatcher.stay": "wait",
    },
}

# Names of variables, arguments and attributes that are gone.
OLD_VARIABLES = {
    "asker", "bridge", "carrier", "course", "depot", "hangup", "hangups", "insight", "misfit", "parcel", "plane",
    "refusal", "ripe", "scribe", "spares", "teller", "verdict", "warmth",
}  # fmt: skip

# Words that our prose does without: pattern -> better.
OLD_WORDS = {
    r"colour": "color: American, as on the wire",
    r"behaviour": "behavior",
    r"neighbour": "neighbor",
    r"\b(licence|travelled|signalled|labelled)\b": "license, traveled, signaled, labeled",
    r"(authori|capitali|initiali|normali|recogni|seriali|synchroni)s(e|es|ed|er|ing|ation)\b": "-ize",
    r"\bmoments?\b": "time",
    r"\banew\b": "again",
    r"\bof late\b": "recently",
    r"\bbegun\b": "started",
    r"\bwhom\b": "the caller, the controller ...",
}

ANY_OLD_VARIABLE = re.compile("|".join(sorted(OLD_VARIABLES)))
ANY_OLD_WORD = re.compile("|".join(OLD_WORDS))


@cache
def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\n") if name and (path := ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def sources(*folders: str) -> list[Path]:
    found = [path for path in tracked("*.py") if "fal_grpc/v1/" not in path.as_posix()]
    return [path for path in found if not folders or name_of(path).split("/")[0] in folders]


def definitions(path: Path) -> Iterator[str]:
    """The classes, functions and methods of a file, methods also as "Class.method"."""
    within = ""
    for indent, kind, name in re.findall(r"^( *)(?:async )?(class|def) (\w+)", path.read_text(), re.MULTILINE):
        yield name
        if not indent:
            within = name if kind == "class" else ""
        elif within:
            yield f"{within}.{name}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(p) for p in sources() if p.read_text().strip() and not p.read_text().startswith('"""')]
    assert not silent


def first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    found = SENTENCE.match(paragraph)
    return found[0] if found else paragraph


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a module defines, and itself, with docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | FUNCTION) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "(module)"), text


def test_first_sentences_are_short() -> None:
    """A docstring's first sentence has at most twelve words."""
    assert [
        f"{name_of(path)}: {name}: {sentence}"
        for path in sources()
        for name, text in documented(path)
        if len((sentence := first_sentence(text)).split()) > WORDS_OF_A_SENTENCE
    ] == []


def test_nothing_is_called_utils() -> None:
    published = ROOT / "fal" / "distributed" / "utils.py"  # where published apps import names from
    found = [p for p in sources() if re.fullmatch(r"(utils?|helpers?|misc|common)", p.stem)]
    assert found == [published]


def test_no_test_sleeps_or_is_skipped() -> None:
    marks = re.compile(r"\b(time\.sleep\(|asyncio\.sleep\((?!0\))|pytest\.skip\(|mark\.skip|mark\.xfail)")
    found = [
        f"{name_of(p)}:{number}"
        for p in sources("tests")
        if p != Path(__file__) and "samples" not in p.parts  # apps, not tests
        for number, line in enumerate(p.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


def test_locks_name_no_registry() -> None:
    for lock in (*(ROOT / "requirements").glob("*.txt"), *(ROOT / "requirements").rglob("*.json")):
        assert not re.search(r"https?://|--index|--find-links", lock.read_text()), lock.name


def test_old_files_are_gone() -> None:
    assert not [name for p in sources(*PRODUCT) if OLD_FILES.fullmatch((name := name_of(p)).removesuffix(".py"))]


def ours() -> list[Path]:
    """Return all sources but the apps and programs of tests. Those name what published clients have."""
    return [path for path in sources() if not {"samples", "apps", "programs"} & {*path.parts}]


def test_old_names_are_gone() -> None:
    found = [
        f"{name_of(path)}: {name}, better {names.get(name) or names[name.lstrip('_')]}"
        for folder, names in OLD_NAMES.items()
        for path in (sources(folder) if folder else ours())
        for name in definitions(path)
        if name in names or (not folder and name.lstrip("_") in names)
    ]
    assert not found


def assigned(path: Path) -> Iterator[str]:
    """Yield the names of a file's variables, arguments and attributes. Yield none if it has no old one at all."""
    text = path.read_text()
    if not ANY_OLD_VARIABLE.search(text):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_old_variables_are_gone() -> None:
    found = {f"{name_of(p)}: {name}" for p in ours() for name in assigned(p) if name.strip("_") in OLD_VARIABLES}
    assert not found


def test_old_words_are_gone() -> None:
    files = [*sources(), *tracked("*.md"), *tracked("*.proto"), ROOT / "Makefile"]
    found = [
        f"{name_of(path)}:{text[: match.start()].count(chr(10)) + 1}: {match[0]}, better {better}"
        for path in files
        if path != Path(__file__) and ANY_OLD_WORD.search(text := path.read_text().lower())
        for pattern, better in OLD_WORDS.items()
        for match in re.finditer(pattern, text)
    ]
    assert not found


@pytest.mark.parametrize("folder", ["cli", "fal", "fal_grpc", "fal_mcp", "fal_runner", "fal_server"])
def test_a_class_name_stands_for_one_thing(folder: str) -> None:
    places = defaultdict(list)
    for path in sources(folder):
        for name in re.findall(r"^ *class _*(\w+)", path.read_text(), re.MULTILINE):
            places[name].append(name_of(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def imports_of(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that a file imports at its top level. Those for type checkers only count, too."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif not isinstance(node, FUNCTION | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("package", ["cli/fal_cli", "fal/api", "fal_grpc", "fal_runner", "fal_server"])
def test_no_imports_run_in_a_circle(package: str) -> None:
    modules = {
        name_of(p).removesuffix(".py").removesuffix("/__init__").replace("/", "."): p
        for p in sources()
        if name_of(p).startswith(f"{package}/")
    }
    graph = {name: sorted({i for i in imports_of(p, modules) if i in modules} - {name}) for name, p in modules.items()}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for imported in graph[name]:
                walk(imported, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])


LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as GitHub writes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(page.read_text())}


def test_links_lead_somewhere() -> None:
    broken = []
    for page in tracked("*.md"):
        for target, anchor in LINK.findall(page.read_text()):
            if re.match(r"\w+:", target):
                continue
            to = (page.parent / target).resolve() if target else page
            if not to.exists() or (anchor and to.suffix == ".md" and anchor not in anchors(to)):
                broken.append(f"{name_of(page)}: {target}#{anchor}")
    assert not broken


def test_pages_that_the_code_names_exist() -> None:
    named = re.compile(r"\bdocs/[\w/-]+\.md\b")
    files = [p for p in [*sources(), ROOT / "Makefile", *tracked("*.md")] if p != Path(__file__)]
    absent = {
        f"{name_of(p)}: {page}" for p in files for page in named.findall(p.read_text()) if not (ROOT / page).exists()
    }
    assert not absent - {"tests/app/test_container.py: docs/a.md"}


def test_every_record_of_live_says_who_owns_it() -> None:
    """Several controllers have to divide what live/ holds. So each class there says which kind it is."""
    kinds = re.compile(r"^(Cache|Owned|Counted|Value|Stateless): ", re.MULTILINE)
    unsaid = [
        f"{path.name}: {node.name}"
        for path in sorted((ROOT / "fal_server" / "live").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not kinds.search(ast.get_docstring(node) or "")
    ]
    assert not unsaid


def test_the_architecture_names_every_room() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text().split("```")[1]
    roots = [*PRODUCT[:-1], "cli/fal_cli"]
    rooms = {path.relative_to(ROOT / root).parts[0] for root in roots for path in tracked(f"{root}/*/*")}
    assert not {room for room in rooms if f"{room}/" not in page}


def test_the_architecture_lists_what_is_in_memory() -> None:
    """Each class that holds state has its row, with its docstring's kinds. Records within it have none."""
    said = {
        (name_of(path), node.name): found
        for path in sources("fal_server", "fal_mcp")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.decorator_list and not node.name.startswith("_")
        if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
        if (found := re.findall(r"(?:^|\. )(Cache|Owned|Counted): ", ast.get_docstring(node) or "", re.MULTILINE))
    }
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    rows = re.findall(r"^\| `([\w/.]+)` \| `(\w+)` \| (\w[\w, ]*) \|", page, re.MULTILINE)
    listed = {(file, name): kinds.title().split(", ") for file, name, kinds in rows if kinds != "stateless"}
    assert listed == said


@pytest.mark.parametrize("name", ["docs/explanation/architecture.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_files_that_a_page_names_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    folders = "|".join((*PRODUCT, "tests", "docs", "scripts", "protos"))
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", text)
    assert not [path for path in named if not (ROOT / path).exists()]
