"""What published apps use besides endpoints. It is billing declarations, GPU faults, settings as values, workflows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

import fal
from fal import flags, workflows
from fal.app.context import context_of
from fal.exceptions import CUDAOutOfMemoryException, GPUException, catch_gpu_exceptions
from fal.workflows import MisconfiguredGraphError, Workflow, WorkflowSyntaxError, create_workflow, parse_leaf

REPORT: dict[str, object] = {"type": "object", "properties": {"seconds": {"type": "number"}}}


class Seconds:
    def __init__(self, declared: object = None) -> None:
        self.declared = declared or {"version": 1, "schema_id": "seconds-1", "app": REPORT}

    def declaration(self) -> fal.BillingComponents:
        return self.declared  # type: ignore[return-value]


class Speaker(fal.App):
    @fal.endpoint("/speak", billing=Seconds())
    def speak(self) -> str:
        return "spoken"

    @fal.endpoint("/")
    def listen(self) -> str:
        return "heard"


def test_what_an_endpoint_reports_is_published_with_the_revision() -> None:
    declared = {"/speak": {"version": 1, "schema_id": "seconds-1", "app": REPORT}}
    assert Speaker.get_billing_components() == declared
    assert Speaker.build_metadata()["billing_components"] == declared
    assert "billing_declaration" not in json.dumps(Speaker.build_metadata()["openapi"])
    assert isinstance(Seconds(), fal.BillingDeclaration)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"version": 1}, "exactly app, schema_id, version"),
        ({"version": True, "schema_id": "x", "app": REPORT}, "version 1"),
        ({"version": 1, "schema_id": "", "app": REPORT}, "schema_id"),
        ({"version": 1, "schema_id": "x", "app": {"type": "array"}}, "of type"),
        ({"version": 1, "schema_id": "x", "app": {"type": "object", "x": float("nan")}}, "JSON unchanged"),
        ({"version": 1, "schema_id": "x", "app": {"type": "object", "x": (1,)}}, "JSON unchanged"),
    ],
)
def test_a_declaration_of_another_form_is_refused(declared: object, problem: str) -> None:
    class Wrong(fal.App):
        @fal.endpoint("/", billing=Seconds(declared))
        def work(self) -> str:
            return ""

    with pytest.raises(ValueError, match=problem):
        Wrong.build_metadata()


def test_what_can_declare() -> None:
    for wrong in (Seconds, 3, "x"):
        with pytest.raises(TypeError, match=r"declaration\(\)"):
            fal.endpoint("/", billing=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="WebSocket"):
        fal.endpoint("/", is_websocket=True, billing=Seconds())


def test_gpu_faults_become_a_503() -> None:
    @catch_gpu_exceptions()
    def draw(error: Exception) -> None:
        raise error

    with pytest.raises(CUDAOutOfMemoryException) as raised:
        draw(RuntimeError("CUDA error: out of memory"))
    assert (raised.value.status_code, str(raised.value.__cause__)) == (503, "CUDA error: out of memory")
    with pytest.raises(GPUException, match="mine") as raised_own, catch_gpu_exceptions():
        raise GPUException("mine")
    assert raised_own.value.__cause__ is None
    with pytest.raises(KeyError), catch_gpu_exceptions():
        raise KeyError("no fault of the GPU")
    with catch_gpu_exceptions():
        pass


def test_a_context_has_the_lifecycle_preference() -> None:
    header = "x-fal-object-lifecycle-preference"
    made = context_of({header: '{"expiration_duration_seconds": "5"}', "x-fal-request-id": "r", "x-fal-endpoint": "/"})
    assert (made.request_id, made.endpoint, made.lifecycle_preference) == (
        "r",
        "/",
        {"expiration_duration_seconds": "5"},
    )
    assert context_of({header: "{"}).lifecycle_preference is context_of({}).lifecycle_preference is None
    assert context_of({header: "[]"}).lifecycle_preference is None


FLAGS = """
import json
from fal import flags
print(json.dumps([flags.GRPC_HOST, flags.REST_URL, flags.FAL_RUN_HOST, flags.FAL_QUEUE_RUN_HOST,
                  flags.FAL_WS_RUN_HOST, flags.DEBUG, flags.URL_OUTPUT, flags.config_host]))
"""
CLOUD = ["api.alpha.fal.ai", "https://rest.alpha.fal.ai", "fal.run", "queue.fal.run", "ws.fal.run"]


@pytest.mark.parametrize(
    ("environment", "hosts", "others"),
    [
        ({}, CLOUD, (False, "all")),
        (
            {"FAL_GRPC_HOST": "127.0.0.1:8080", "DEBUG": "1", "FAL_URL_OUTPUT": "None"},
            ["127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:8080/queue", "127.0.0.1:8080"],
            (True, "none"),
        ),
        (
            {"FAL_HOST": "api.example.com", "FAL_RUN_HOST": "run.example.com"},
            [
                "api.example.com",
                "https://rest.example.com",
                "run.example.com",
                "queue.run.example.com",
                "ws.run.example.com",
            ],
            (False, "all"),
        ),
    ],
)
def test_flags_say_what_commands_use(
    environment: dict[str, str], hosts: list[str], others: tuple[bool, str], tmp_path: Path
) -> None:
    kept = {"HOME": str(tmp_path), "FAL_CONFIG_PATH": str(tmp_path / "c"), **environment}
    done = subprocess.run([sys.executable, "-c", FLAGS], env=kept, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == [*hosts, *others, None]
    with pytest.raises(AttributeError):
        _ = flags.NO_SUCH_FLAG
    assert "GRPC_HOST" in dir(flags)


class Asked(BaseModel):
    prompt: str


class Drawn(BaseModel):
    image: str


def drawing() -> Workflow:
    workflow = create_workflow("portrait", Asked, Drawn)
    drawn = workflow.run("owner/draw-it", {"prompt": workflow.input.prompt, "size": [1, 2]})
    workflow.run("owner/draw-it", {"image": drawn.images[0].url})
    workflow.display(drawn.images[0].url)
    workflow.set_output({"image": drawn.images[0].url})
    return workflow


def test_a_workflow_goes_to_json_and_back() -> None:
    made = drawing().to_json()
    nodes = made["nodes"]
    assert isinstance(nodes, dict)
    assert list(nodes) == ["owner_draw_it_1", "owner_draw_it_2", "display_1"]
    assert nodes["owner_draw_it_2"] == {
        "type": "run",
        "id": "owner_draw_it_2",
        "app": "owner/draw-it",
        "depends": ["owner_draw_it_1"],
        "input": {"image": "$owner_draw_it_1.images.0.url"},
    }
    assert made["output"] == {"image": "$owner_draw_it_1.images.0.url"}
    again = Workflow.from_json(json.loads(json.dumps(made)))
    assert again.to_json() == made
    again.run("owner/draw-it", {})
    assert "owner_draw_it_3" in again.nodes


def test_references_stand_for_what_is_there() -> None:
    context = workflows.Context({"input": {"a": [{"b": 1}]}})
    assert context.hydrate({"x": [parse_leaf("$input.a.0.b"), "plain"]}) == {"x": [1, "plain"]}
    for wrong, problem in [("$none", "neither"), ("$input.c", "no field 'c'"), ("$input.a.3", "no item 3")]:
        with pytest.raises(MisconfiguredGraphError, match=problem):
            context.hydrate(parse_leaf(wrong))
    for wrong in ("input.a", "$", "$input.a b"):
        with pytest.raises(WorkflowSyntaxError, match="not a reference"):
            parse_leaf(wrong)
    with pytest.raises(WorkflowSyntaxError, match="only in a run"):
        list(drawing().input.prompt)


def test_graphs_that_cannot_run() -> None:
    without = create_workflow("w", Asked, Drawn)
    for use in (without.to_json, lambda: without.execute({})):
        with pytest.raises(WorkflowSyntaxError, match="set_output"):
            use()
    broken = drawing().to_json()
    nodes = broken["nodes"]
    assert isinstance(nodes, dict)
    del nodes["owner_draw_it_1"]
    with pytest.raises(MisconfiguredGraphError, match="no node owner_draw_it_1"):
        Workflow.from_json(broken).execute({"prompt": "x"})
    with pytest.raises(WorkflowSyntaxError, match="the kinds are run, display"):
        Workflow.from_json({**broken, "nodes": {"a": {"type": "sleep", "id": "a"}}})
    with pytest.raises(WorkflowSyntaxError, match="a workflow has a name"):
        Workflow.from_json({"name": "x"})


WHOLE = {
    "name": "w",
    "schema": {"input": {}, "output": {}},
    "nodes": {"a": {"type": "run", "id": "a", "depends": [], "app": "local/none", "input": {}}},
    "output": "$a.text",
}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "contains no workflow"),
        ("{}", "a workflow has a name"),
        (json.dumps({**WHOLE, "nodes": {"a": 1}}), "the step a is not a JSON object"),
        (json.dumps({**WHOLE, "nodes": {"a": {"type": "run", "id": "a", "input": {}}}}), "has no field 'app'"),
        (json.dumps({**WHOLE, "nodes": {"a": {"type": ["run"], "id": "a"}}}), "the kinds are run, display"),
        (
            json.dumps({**WHOLE, "nodes": {"a": {"type": "display", "id": "a", "fields": "x"}}}),
            "not a list of references",
        ),
        (json.dumps({**WHOLE, "nodes": {}, "output": "$b"}), "neither the input nor a node"),
        (json.dumps(WHOLE), "ConnectError"),
    ],
)
def test_the_program_says_in_a_line_what_is_wrong(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "workflow.json"
    if content is not None:
        path.write_text(content)
    environment = {"HOME": str(tmp_path), "FAL_HOST": "127.0.0.1:1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "fal.workflows", str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
