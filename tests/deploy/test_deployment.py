"""The calls of a deploy and of a run."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from fal.deploy import aio, build, deploy, deployment_aio, prepare, run
from fal.deploy.errors import BuildFailedError, DeployError, UserFunctionError
from fal.deploy.requests import checked_notes
from fal.deploy.results import unfinished_deploy
from fal_grpc.adapter.log import Log, LogLevel, LogSource
from fal_grpc.adapter.revision import BuildResult, RegisterRequest, RegisterResult
from fal_grpc.adapter.run import MachineRequirements, ReturnValue, RunResult, RunState, ServiceURLs
from fal_grpc.errors import DOMAIN, FalError, UnavailableError

CODE = """
import fal


class Sample(fal.App):
    @fal.endpoint("/")
    def run(self) -> str: ...

    @fal.endpoint("/more")
    def more(self) -> str: ...


@fal.function()
def twice(n): return 2 * n
"""
URLS = ServiceURLs(playground="http://p/o/a", run="http://r/o/a", queue="http://q/o/a", ws="ws://w", log="http://l")


def plain(value):
    return ReturnValue(method="pickle", definition=pickle.dumps(value))


@dataclass
class Calls:
    """A fake controller, which records requests and gives set answers."""

    build: list[RunState | None] = field(default_factory=lambda: [None, RunState.SUCCESS])
    registered: list[tuple[str | None, ServiceURLs | None]] = field(
        default_factory=lambda: [(None, None), ("rev", URLS)]
    )
    returned: ReturnValue | None = None
    run_state: RunState = RunState.SUCCESS
    asked: list[object] = field(default_factory=list)

    def controller(self):
        return self

    def rest(self):
        raise AssertionError("no files are sent")

    def build_environment(self, request):
        self.asked.append(request)
        for state in self.build:
            line = Log(message="No solution found", source=LogSource.BUILDER, level=LogLevel.ERROR, timestamp=None)
            yield BuildResult(env_id="env", state=state, logs=(line,))

    def register_application(self, request):
        self.asked.append(request)
        for application_id, urls in self.registered:
            yield RegisterResult(logs=(), application_id=application_id, service_urls=urls, env_id=None)

    def run(self, request):
        self.asked.append(request)
        common = {"run_id": "run", "logs": (), "service_urls": None, "env_id": None}
        words = Log(message="last words", source=LogSource.USER, level=LogLevel.INFO, timestamp=None)
        yield RunResult(state=RunState.IN_PROGRESS, return_value=None, **{**common, "logs": (words,)})
        yield RunResult(state=self.run_state, return_value=self.returned, **common)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return Calls()


def test_a_deploy_builds_then_registers(calls):
    built, streamed = [], []
    result = deploy(
        calls,
        "app.py",
        auth="shared",
        message="why",
        annotations={"sha": "1"},
        build_result_handler=built.append,
        result_handler=streamed.append,
    )
    build, register = calls.asked
    assert build.application_name == register.application_name == "sample"
    assert register.build_environment is False
    assert {key: register.metadata[key] for key in ("message", "annotations")} == {
        "message": "why",
        "annotations": {"sha": "1"},
    }
    assert (result.revision, result.app_name, result.auth_mode, result.log_url) == (
        "rev",
        "sample",
        "shared",
        "http://l",
    )
    assert result.urls["sync"] == {
        "/": "http://r/o/a/",
        "/health": "http://r/o/a/health",
        "/more": "http://r/o/a/more",
    }
    assert result.urls["async"]["/more"] == "http://q/o/a/more"
    assert (len(built), len(streamed)) == (2, 2)


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        ("", "", 0),
        ("", "    VALUE = 1", 0),
        ("", "    requirements = ['humanize']", 1),
        ("", "    machine_type = 'M'", 1),
        ("", "    secrets = ['KEY']", 1),
        ("    force = True", "    force = True", 1),
    ],
)
def test_an_environment_is_asked_for_again_only_if_it_became_another(calls, tmp_path, before, after, asked):
    def edited(line):
        (tmp_path / "app.py").write_text(CODE.replace("class Sample(fal.App):", f"class Sample(fal.App):\n{line}"))
        return prepare("app.py::Sample")

    earlier = build(calls, edited(before), environment_name=None)
    calls.asked.clear()
    later = build(calls, edited(after), environment_name=None, built=earlier)
    assert len(calls.asked) == asked
    assert later.methods == earlier.methods


class AsyncCalls:
    """The same controller for asyncio."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def controller(self) -> Any:
        return self

    async def rest(self):
        raise AssertionError("no files are sent")

    async def build_environment(self, request):
        for result in self.calls.build_environment(request):
            yield result

    async def register_application(self, request):
        for result in self.calls.register_application(request):
            yield result

    async def run(self, request):
        for result in self.calls.run(request):
            yield result


async def test_a_deploy_on_the_asyncio_side_is_the_same(calls):
    blocking = deploy(calls, "app.py", auth="shared", message="why")
    asked, calls.asked = calls.asked, []
    assert await aio.deploy(AsyncCalls(calls), "app.py", auth="shared", message="why") == blocking
    assert [type(request) for request in calls.asked] == [type(request) for request in asked]
    assert calls.asked[-1].metadata == asked[-1].metadata
    calls.build = [RunState.INTERNAL_FAILURE]
    with pytest.raises(BuildFailedError, match="No solution found"):
        await aio.deploy(AsyncCalls(calls), "app.py")


async def test_a_run_on_the_asyncio_side_is_the_same(calls):
    calls.returned = plain(4)
    assert run(calls, "app.py::twice", arguments=[2]) == 4
    assert await deployment_aio.run(AsyncCalls(calls), "app.py::twice", arguments=[2]) == 4


def test_a_strategy_of_pyproject_holds_unless_another_is_asked_for(calls, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.fal.apps.x]\nref = "app.py"\ndeployment_strategy = "recreate"\napp_scale_settings = true\n'
    )
    deploy(calls, "x")
    assert (calls.asked[-1].deployment_strategy, calls.asked[-1].scale) == ("recreate", True)
    deploy(calls, "app.py", reset_scale=True, no_cache=True)
    assert (calls.asked[-1].deployment_strategy, calls.asked[-1].scale) == ("rolling", True)
    assert calls.asked[-2].environments[0].force


def test_an_import_path_is_asked_for_its_description(calls, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.fal.apps.x]\npython_entry_point = "mod:Sym"\n')
    calls.returned = plain({"openapi": {"paths": {"/there": {}}}})
    result = deploy(calls, "x")
    _, described, register = calls.asked
    assert (described.entrypoint, register.entrypoint) == ("mod:Sym.build_metadata", "mod:Sym.run_local")
    assert result.urls["sync"] == {"/there": "http://r/o/a/there"}
    calls.returned = ReturnValue(
        method="pickle",
        definition=b"",
        was_it_raised=True,
        exception_type_name="ImportError",
        exception_message="no mod",
    )
    with pytest.raises(
        DeployError, match=r"mod:Sym\.build_metadata could not be called: .* ImportError: no mod\nlast words"
    ):
        deploy(calls, "x")
    calls.returned = plain("no mapping")
    with pytest.raises(DeployError, match=r"is it a fal\.App"):
        deploy(calls, "x")


@pytest.mark.parametrize("states", [[RunState.INTERNAL_FAILURE], [None], []])
def test_a_build_that_fails_ends_the_deploy(calls, states):
    calls.build = states
    if RunState.INTERNAL_FAILURE in states:
        with pytest.raises(BuildFailedError, match="No solution found"):
            deploy(calls, "app.py")
        calls.asked.clear()
    with pytest.raises(BuildFailedError, match="sample") as caught:
        deploy(calls, "app.py", build_result_handler=lambda _: None)
    assert "No solution" not in str(caught.value)  # the handler received it
    assert len(calls.asked) == 1


@pytest.mark.parametrize(
    ("registered", "words"), [([], "did not confirm"), ([("rev", None)], "no addresses came back")]
)
def test_an_incomplete_answer_is_no_deploy(calls, registered, words):
    calls.registered = registered
    with pytest.raises(DeployError, match=words):
        deploy(calls, "app.py")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "slow"}, "give one of rolling, recreate"),
        ({"strategy": "recreate", "attach_to_deployment": True}, "for rolling deploys"),
        ({"auth": "open"}, "give one of private, public, shared"),
        ({"message": "x" * 3000}, "at most 2048"),
    ],
)
def test_wrong_options_send_nothing_that_deploys(calls, options, words):
    with pytest.raises(DeployError, match=words):
        deploy(calls, "app.py", **options)
    assert not any(hasattr(request, "source_code") for request in calls.asked)


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"": "x"}, "1 to 64"),
        ({"k" * 65: "x"}, "1 to 64"),
        ({"openapi": "x"}, "reserved"),
        ({"k": 3}, "give a text"),
        ({str(n): "x" for n in range(33)}, "at most 32"),
        ({"k": "ü" * 9000}, "at most 16384"),
    ],
)
def test_annotations_have_limits(annotations, words):
    with pytest.raises(DeployError, match=words):
        checked_notes(None, annotations)


def test_a_run_returns_what_the_function_returned(calls):
    calls.returned = plain({"n": [1, 2.5, None, "x"]})
    seen = []
    assert run(calls, "app.py::twice", arguments=[3], result_handler=seen.append) == {"n": [1, 2.5, None, "x"]}
    assert len(seen) == 2
    assert pickle.loads(calls.asked[-1].function.definition)() == 6
    calls.returned = ReturnValue(method="json", definition=json.dumps([1]).encode())
    assert run(calls, "app.py::twice", keywords={"n": 1}) == [1]


class Evil:
    def __reduce__(self):
        return (print, ("the sender's code ran",))


def test_a_result_that_could_run_code_is_not_read_unasked(calls, capsys):
    calls.returned = plain(Evil())
    with pytest.raises(FalError, match="not read by default"):
        run(calls, "app.py::twice")
    assert capsys.readouterr().out == ""
    assert run(calls, "app.py::twice", allow_pickle=True) is None
    assert "the sender's code ran" in capsys.readouterr().out


def test_an_exception_there_is_an_error_here(calls):
    calls.returned = ReturnValue(
        method="pickle",
        definition=b"",
        was_it_raised=True,
        exception_type_name="ValueError",
        exception_message="no",
        traceback="Traceback …",
    )
    with pytest.raises(UserFunctionError, match="the function raised ValueError: no") as caught:
        run(calls, "app.py::twice")
    assert (caught.value.exception_type_name, caught.value.traceback) == ("ValueError", "Traceback …")


def test_a_platform_that_fails_is_an_error(calls):
    calls.run_state = RunState.INTERNAL_FAILURE
    with pytest.raises(DeployError, match="could not carry out the run"):
        run(calls, "app.py::twice")
    calls.run_state = RunState.IN_PROGRESS
    with pytest.raises(DeployError, match="ended without reporting"):
        run(calls, "app.py::twice")


def raised(error: Exception) -> ReturnValue:
    return ReturnValue(
        method="cloudpickle",
        definition=pickle.dumps(error),
        was_it_raised=True,
        exception_type_name=type(error).__name__,
        exception_message=str(error),
        traceback="Traceback …",
    )


def test_the_cause_is_the_exception_if_its_class_is_known(calls):
    calls.returned = raised(KeyError("a", 1))
    with pytest.raises(UserFunctionError) as caught:
        run(calls, "app.py::twice")
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert (cause.args, cause.__notes__) == (("a", 1), ["In the runner:\nTraceback …"])


class EvilError(Exception):
    def __reduce__(self):
        return (print, ("the sender's code ran",))


def test_an_exception_runs_no_code_of_its_sender(calls, capsys):
    calls.returned = raised(EvilError())
    with pytest.raises(UserFunctionError) as caught:
        run(calls, "app.py::twice")
    assert caught.value.__cause__ is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stored", [None, "rev-1"])
def test_a_controller_that_cannot_deploy_is_not_told_as_a_broken_connection(stored):
    request = RegisterRequest(
        environments=(), machine=MachineRequirements(), application_name="hello", revision_id="rev-1"
    )
    answered = UnavailableError("the bucket refuses: 403", details="the bucket refuses: 403", domain=DOMAIN)
    told = str(unfinished_deploy(request, stored=stored, error=answered))
    assert "the bucket refuses: 403" in told
    assert "connection" not in told
    assert "is not known" not in told
    lost = UnavailableError("", details="Socket closed")
    assert "the connection broke (Socket closed)" in str(unfinished_deploy(request, stored=stored, error=lost))
