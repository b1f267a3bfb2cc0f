"""App files in the style of published ones, deployed as they are by both clients, and called.

The files are in `apps`. Each is a small whole app: models with stand-in weights, streams, files and errors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.controller import Answer, Controller
from tests.support.official import Official

APPS = Path(__file__).with_name("apps")
Call = Callable[..., Answer]


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
    return [[answer.status, answer.json()] for answer in answers]


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
        ],
    ),
    "function": (lambda call: call({}, "/?text=up").json(), {"text": "UP"}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_both_clients_deploy_it_as_it_is(controller: Controller, official: Official, name: str) -> None:
    ask, expected = EXPECTED[name]
    for client in ("ours", "theirs"):
        app = f"{name.replace('_', '-')}-{client}"
        arguments = ("deploy", str(APPS / f"{name}.py"), "--app-name", app, "--auth", "public")
        controller.fal(*arguments) if client == "ours" else official.fal(*arguments)

        def call(body: object, path: str = "/", *, app: str = app) -> Answer:
            return controller.call(f"/local/{app}{path}", body)

        assert ask(call) == expected, client
        if name == "several":
            assert call({}, "/memory").status == 503
