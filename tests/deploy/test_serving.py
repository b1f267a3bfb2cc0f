"""The ways to serve an app, depending on its requirements."""

from __future__ import annotations

from pathlib import Path

import pytest

from fal.deploy.preparation import prepare
from fal.deploy.serving import ways_to_serve

MODELS = "from pydantic import BaseModel\n"


def added(requirements: list[str], source: str = MODELS, *, realtime: bool = False) -> list[list[str]]:
    ways = ways_to_serve(requirements, realtime=realtime, sources=[source])
    return [[one.partition("=")[0].partition(">")[0] + "!" * way.minimal for one in way.added] for way in ways]


def test_the_minimal_server_comes_before_another_major_version_of_pydantic() -> None:
    ways = ways_to_serve(["numpy"], realtime=False, sources=[MODELS])
    assert [way.minimal for way in ways] == [False, False, True, False]
    assert ways[0].reason == ""
    assert all(way.reason for way in ways[1:])
    assert [one for one in ways[0].added if one.startswith("fastapi==")]
    assert ways[2].added == ("uvicorn", "pydantic>=2,<3")
    assert ways[3].added == ("fastapi", "pydantic", "uvicorn", "httptools", "uvloop")


def test_the_minimal_server_needs_no_pydantic_of_its_own() -> None:
    assert added([], "import fal\n")[2] == ["uvicorn!"]


@pytest.mark.parametrize("source", ["from fastapi import Request\n", "def f():\n    import starlette.types\n"])
def test_an_app_that_imports_fastapi_gets_it(source: str) -> None:
    assert not any(way.minimal for way in ways_to_serve([], realtime=False, sources=[MODELS, source]))


def test_an_app_with_web_sockets_gets_fastapi() -> None:
    assert not any("!" in one for way in added(["pydantic<1.10"], realtime=True) for one in way)


@pytest.mark.parametrize(
    "requirement",
    [
        "pydantic<1.10",
        "pydantic==1.8.2",
        "pydantic~=1.9.0",
        "pydantic==1.9.*",
        "Pydantic [email] <=1.9.2,>1",
        "fastapi==0.40",
    ],
)
def test_versions_that_are_too_old_get_the_minimal_server_at_once(requirement: str) -> None:
    (way,) = ways_to_serve([["numpy"], [requirement]], realtime=False, sources=[MODELS])
    assert way.minimal
    assert requirement in way.reason


@pytest.mark.parametrize(
    "requirement",
    [
        "pydantic",
        "pydantic<2",
        "pydantic==1.10.18",
        "pydantic==1.10.*",
        "pydantic>1.10.5,<1.10.8",
        "pydantic!=1.10",
        "pydantic==2.7.4",
        "pydantic~=2.7.4",
        "pydantic>=1.8",
        "pydantic>2.999",
        "pydantic @ https://example.com/pydantic.whl",
        "pydantic is not a requirement",
        "fastapi==0.60.1",
        "fastapi[all]>=0.40",
    ],
)
def test_other_versions_do_not(requirement: str) -> None:
    assert not ways_to_serve([requirement], realtime=False, sources=[MODELS])[0].minimal


CONFLICT = [
    "Downloading pydantic (2.8MiB)",
    "error: No solution found when resolving dependencies",
    "  cause: Because fastapi>=0.165.0 depends on anyio>=4.1.0 and you require anyio<3, ...",
]
UNREACHABLE = [
    "Using Python 3.11.7 environment at: somewhere",
    "error: Failed to fetch: https://packages.example/simple/fastapi/",
    "  cause: error sending request for url (https://packages.example/simple/fastapi/)",
]
MISSPELT = [
    "Downloading fastapi (1 MiB)",
    "error: No solution found when resolving dependencies",
    "  cause: Because humanzie was not found in the package registry and you require humanzie, ...",
]


def test_only_a_failure_that_names_what_was_added_is_blamed_on_it() -> None:
    usual = ways_to_serve(["anyio<3"], realtime=False, sources=[])[0]
    assert usual.is_blamed(CONFLICT)
    assert not usual.is_blamed(MISSPELT)
    assert not usual.is_blamed(UNREACHABLE)
    own = ways_to_serve(["fastapi==0.60", "anyio>4"], realtime=False, sources=[])[0]
    assert not own.is_blamed(CONFLICT)


RANGES = [
    "error: No solution found when resolving dependencies",
    """  cause: Because only confect==1.0 is available and confect==1.0 depends on one of:
             pydantic>=1.7.4,<1.8
             pydantic>1.8,<1.9
         we can conclude that all versions of confect depend on one of:
             pydantic>=1.7.4,<1.8
             pydantic>1.8,<1.9""",
    "         And because you require confect and pydantic==2.14.3, we can conclude that ...",
]
ONE = ["  cause: Because confect==1.0 depends on pydantic<2 and you require confect==1.0, we can conclude that ..."]
EVERY = [
    "  cause: Because all versions of confect depend on pydantic<2 and you require confect, we can conclude that ..."
]


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (RANGES, "confect==1.0 depends on pydantic>=1.7.4,<1.8 or pydantic>1.8,<1.9"),
        ([line for entry in RANGES for line in entry.split("\n")], "confect==1.0 depends on pydantic>=1.7.4,<1.8"),
        (ONE, "confect==1.0 depends on pydantic<2"),
        (EVERY, "confect depends on pydantic<2"),
        (CONFLICT, "it requires anyio<3"),
        (UNREACHABLE, ""),
    ],
)
def test_the_requirement_that_leaves_no_room_is_named(log: list[str], cause: str) -> None:
    usual = ways_to_serve(["confect"], realtime=False, sources=[])[0]
    assert usual.conflict_in(log).startswith(cause)
    assert bool(usual.conflict_in(log)) == bool(cause)


def test_an_app_that_is_prepared_again_keeps_the_way_in_which_it_was_built(tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    app = "import fal\nclass A(fal.App):\n    requirements = {}\n"
    text = app + "    @fal.endpoint('/')\n    def run(self) -> int: return 1\n"
    source.write_text(text.format("['anyio<3']"))
    built = prepare(str(source)).served_otherwise("it requires anyio<3")
    again = prepare(str(source)).served_as(built.serving)
    assert (again.serving, again.options) == (built.serving, built.options)
    assert again.serving is not None
    assert again.serving.why().endswith("(it requires anyio<3)")
    source.write_text(text.format("['anyio']"))
    assert prepare(str(source)).served_as(built.serving).serving == prepare(str(source)).serving
