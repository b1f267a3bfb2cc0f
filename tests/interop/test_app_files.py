"""App files in the style of published ones. Both clients deploy them unchanged and call them.

The files are in `apps`. Each is a small complete app: models with fake weights, streams, sessions, files and errors.
Each client deploys all of them with one program, `deploying`; they need the same packages, so there is one build for
each client.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from websockets.sync.client import connect

from tests.interop.wheels import served
from tests.support.controller import Answer, Controller
from tests.support.official import Official

APPS = Path(__file__).with_name("apps")
DEPLOYING = Path(__file__).with_name("deploying.py")
Call = Callable[..., Answer]
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAADElEQVR4nGNgwA0AABoAAZqcG5sAAAAASUVORK5CYII="
)


def archive() -> str:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as made:
            for name in ("b.txt", "a.txt", "c.bin"):
                made.writestr(name, f"in {name}")
        return f"data:application/zip;base64,{b64encode(file.getvalue()).decode()}"


def text_model(call: Call) -> object:
    return [call({"text": "good good bad", "scale": 2}).json(), call({"text": 3}).status]


def image_model(call: Call) -> object:
    made = call({"image_size": "portrait_4_3"}).json()
    assert isinstance(made, dict)
    (image,) = made["images"]
    assert image.pop("url").startswith("data:image/png;base64,iVBOR")
    assert image.pop("file_size") > 500
    assert image.pop("file_name").endswith(".png")
    return made


def audio_model(call: Call) -> object:
    made = call({"seconds": 2}).json()
    assert isinstance(made, dict)
    assert made["audio"].pop("url").startswith("data:audio/wav;base64,UklGR")
    return made


def lora(call: Call) -> object:
    trained = call(
        {"name": "n", "images": ["data:text/plain,one", {"url": "https://example.com/two"}]}, "/train"
    ).json()
    assert isinstance(trained, dict)
    used = call({"lora": trained["diffusers_lora_file"]})
    hints = {name.lower(): value for name, value in used.headers.items()}.get("x-fal-runner-hints")
    return [trained["config_file"]["file_name"], used.json(), hints]


def language_model(call: Call) -> object:
    return [call({"prompt": "once"}).json(), call({"prompt": "upon"}, "/stream").body.decode().split("\n\n")]


def several(call: Call) -> object:
    answers = [call({"prompt": "p"}, path) for path in ("/", "/refused", "/busy", "/ok")]
    return [*([answer.status, answer.json()] for answer in answers), call({}, "/memory").status]


def upscale(call: Call) -> object:
    broken = "data:image/png;base64,iVBO"
    statuses = [call({"image": image}).status for image in ("x", broken, broken)]
    return [call({"image": PNG}).json(), *statuses, call({"image": PNG}).json()]


def unpacked(call: Call) -> object:
    made = call({"archive": archive()}).json()
    assert isinstance(made, dict)
    head, _, content = made["first"]["url"].partition(",")
    return [made["names"], head, content]


def packaged(call: Call) -> object:
    answers = [call({"prompt": "a fox"}), call({"prompt": "a fox", "words": 10}), call({}, "/ready")]
    return [answers[0].json(), answers[1].status, answers[2].json()]


EXPECTED: dict[str, tuple[Callable[[Call], object], object]] = {
    "text_model": (text_model, [{"score": 2, "label": "good"}, 422]),
    "image_model": (
        image_model,
        {"images": [{"content_type": "image/png", "width": 768, "height": 1024}], "has_nsfw_concepts": [False]},
    ),
    "audio_model": (
        audio_model,
        {"audio": {"content_type": "audio/wav", "file_name": "speech.wav", "file_size": 16044}},
    ),
    "lora": (lora, ["config.json", {"bytes": 42}, "lora"]),
    "language_model": (
        language_model,
        [{"output": "upon a time"}, ['data: {"output": "a"}', 'data: {"output": "time"}', ""]],
    ),
    "several": (
        several,
        [
            [200, {"prompt": "p"}],
            [422, {"detail": [{"loc": ["body", "prompt"], "msg": "is not allowed", "type": "value_error"}]}],
            [429, {"detail": "come back later"}],
            [200, {"ok": True}],
            503,
        ],
    ),
    "function": (lambda call: call({}, "/?text=up").json(), {"text": "UP"}),
    "billed": (lambda call: call({"seconds": 2.5}).json(), {"worked": 2.5}),
    "upscale": (upscale, [{"width": 6, "calls": 2}, 422, 500, 500, {"width": 6, "calls": 3}]),
    "compiled": (lambda call: call({}).json(), {"gpu": "UNKNOWN", "tmp": True, "state": "RUNNING"}),
    "context": (lambda call: call({}).json(), {"endpoint": "/", "has_id": True, "opened": True}),
    "archive": (unpacked, [["a.txt", "b.txt"], "data:text/plain;base64", b64encode(b"in a.txt").decode()]),
    "live": (lambda call: call({"number": 4}).json(), {"doubled": 8}),
    "with-modules": (lambda call: call({"text": "up"}).json(), {"text": "UP", "words": "the words"}),
    "packaged": (packaged, [{"output": "a fox a fox", "package": "packaged.model"}, 422, {"ready": True}]),
    # The published package's processes need PyTorch and ZeroMQ, which are not installed.
    "distributed": (lambda call: call({"number": 4}).json(), {"sum": 14, "rank": 0, "of": 2}),
}


@pytest.fixture(scope="module", params=["ours", "theirs"])
def client(
    request: pytest.FixtureRequest, controller: Controller, official: Official, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Deploy all files with one client; return its name."""
    client = str(request.param)
    files = [str(APPS / f"{name}.py") for name in EXPECTED if name not in PROJECTS]
    package = tmp_path_factory.mktemp("package")
    with served(package, "packaged", {"model.py": (APPS / "packaged" / "model.py").read_text()}) as wheel:
        project = (APPS / "packaged" / "pyproject.toml").read_text()
        (package / "pyproject.toml").write_text(project.replace("CLIENT", client).replace("WHEEL", wheel))
        # One process for each project, because the published client reads pyproject.toml once.
        for paths in ([*files, str(APPS / "project" / "with-modules")], [str(package / f"packaged-{client}")]):
            arguments = [str(DEPLOYING), client, *paths]
            if client == "ours":
                subprocess.run([sys.executable, *arguments], env=controller.environment, check=True, timeout=400)
            else:
                official.run("python", *arguments)
    return client


PROJECTS = ("with-modules", "packaged")


def name_of(app: str, client: str) -> str:
    return app if app == "with-modules" else f"{app.replace('_', '-')}-{client}"


@pytest.mark.parametrize("app", EXPECTED)
def test_it_answers_as_it_was_deployed_by_either_client(controller: Controller, client: str, app: str) -> None:
    ask, expected = EXPECTED[app]

    def call(body: object, path: str = "/") -> Answer:
        return controller.call(f"/local/{name_of(app, client)}{path}", body)

    if (app, client) == ("distributed", "theirs"):
        refused = call({})
        runner = re.search(r"runners logs ([\w-]+)", refused.body.decode())
        assert (refused.status, runner is not None) == (503, True), refused.body
        assert runner is not None
        assert re.search(r"No module named '(zmq|torch)'", controller.fal("runners", "logs", runner[1]).stdout)
    else:
        assert ask(call) == expected


def test_sessions_answer(controller: Controller, client: str) -> None:
    address = f"ws://{controller.host}/local/{name_of('live', client)}"
    with connect(f"{address}/realtime", open_timeout=60) as realtime:
        question = msgpack.packb({"number": 7})
        assert question is not None
        realtime.send(question)
        answer = realtime.recv()
        assert isinstance(answer, bytes)
        assert msgpack.unpackb(answer) == {"doubled": 14}
    with connect(f"{address}/ws", open_timeout=60) as talking:
        talking.send("hello")
        assert talking.recv() == "heard hello"
