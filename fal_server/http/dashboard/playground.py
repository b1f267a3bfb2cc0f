"""The playground: calls an app from a form, and shows its response. It shows the same call for other programs, too.

Streamed calls and realtime sessions go from the page's script to the app itself, over a WebSocket with a token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from enum import StrEnum
from pprint import pformat
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from fal_server.access.permissions import require_app
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal
from fal_server.core.json_reader import read_json
from fal_server.core.queue import Answer
from fal_server.http.dashboard.forms import form_of
from fal_server.http.dashboard.media import media_of
from fal_server.http.dashboard.pages import app_of, headers_of
from fal_server.http.dashboard.schema import endpoints, entered, example_of, fields_of, is_realtime
from fal_server.http.dashboard.ui import Routes, Ui, back
from fal_server.services.submission import Submission
from fal_server.services.views import Urls

_WAIT_SECONDS = 60.0
_TOKEN_SECONDS = 60.0
_OF_THE_FORM = "in."
_STREAM = "/stream"
_PLACE = "/ui/apps/{app}/playground"
routes = Routes()


class CallKind(StrEnum):
    """How an endpoint is usually called."""

    CALL = "call"
    STREAM = "stream"
    REALTIME = "realtime"


@routes.action(f"{_PLACE}/token")
async def _token(ui: Ui, request: Request, caller: Principal) -> Response:
    """Return a token for the page's script to open an app's WebSocket."""
    app_id = app_of(request, caller)
    require_app(caller, app_id)
    token = ui.tokens.for_calls(caller, [str(app_id)], _TOKEN_SECONDS).text
    return PlainTextResponse(token, headers=headers_of(request))


@routes.page(_PLACE, f"{_PLACE}/{{endpoint:path}}")
async def _show(
    ui: Ui,
    request: Request,
    caller: Principal,
    path: str = "",
    body: object = None,
    answer: tuple[str, Answer | None, str | None] = ("", None, None),
) -> Response:
    app_id, form = app_of(request, caller), await form_of(request)
    require_app(caller, app_id)
    description = (await ui.revisions.metadata(caller.scope, str(app_id))).get("openapi")
    paths = endpoints(description) or ["/"]
    path = path or form.get("path") or f"/{request.path_params.get('endpoint', '')}"
    path = path if path in paths else paths[0]
    fields = fields_of(description, path)
    sent = example_of(fields) if body is None else body
    request_id, content, error = answer
    kind = CallKind.STREAM if path.endswith(_STREAM) else CallKind.CALL
    kind = CallKind.REALTIME if is_realtime(description, path) else kind
    name = f"{ui.pages.nickname(caller)}/{app_id}"
    return ui.pages.show(
        request,
        "playground.html",
        external=True,
        app=str(app_id),
        paths=paths,
        chosen=path,
        fields=fields,
        values=_texts(sent) | (_of_form(form) if body is None else {}),
        json_text=form.get("json") or json.dumps(sent, indent=2, ensure_ascii=False),
        kind=kind,
        socket=quote(f"/{name}{path}"),
        snippets=snippets(ui.urls(app_id), name, path, sent, kind),
        request_id=request_id,
        answer=None if content is None else media_of(content),
        error=error,
    )


@routes.action(_PLACE, again=_show)
async def _call(ui: Ui, request: Request, caller: Principal) -> Response:
    app_id, form = app_of(request, caller), await form_of(request)
    require_app(caller, app_id)
    path, how = form.get("path", ""), form.get("send", "")
    description = (await ui.revisions.metadata(caller.scope, str(app_id))).get("openapi")
    if path not in (endpoints(description) or ["/"]):  # it goes into the head of a request
        raise InvalidArgument("path", f"path is {path[:80]!r}: choose an endpoint on the page")
    if is_realtime(description, path):
        raise InvalidArgument("path", f"{path} takes messages of a realtime session: `Send` on the page begins one")
    if how.startswith("json"):
        try:
            body = read_json(form.get("json", "").encode())
        except ValueError as error:
            raise InvalidArgument("json", f"that is not JSON: {error}") from error
    else:
        body = entered(fields_of(description, path), _of_form(form))
    submission = Submission(
        app_id=app_id,
        path=path,
        headers=(("content-type", "application/json"), ("accept", "application/json")),
        body=json.dumps(body).encode(),
        caller=caller.key_id,
    )
    accepted = (await ui.queue.submit(submission)).request
    place = f"/ui/apps/{quote(str(app_id))}/requests/{accepted.request_id}"
    if how.endswith("queue"):
        return back(place)
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await ui.queue.finished(accepted.request_id)
    except TimeoutError:
        return back(place, "It is still at work; this page shows its answer when it has one.")
    done, answer = await ui.queue.result(app_id, accepted.request_id)
    return await _show(ui, request, caller, path, body, (done.request_id, answer, done.error))


def _of_form(form: Mapping[str, str]) -> dict[str, str]:
    return {name[len(_OF_THE_FORM) :]: text for name, text in form.items() if name.startswith(_OF_THE_FORM)}


def _texts(sent: object) -> dict[str, str]:
    if not isinstance(sent, Mapping):
        return {}
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in sent.items()}


def snippets(urls: Urls, name: str, path: str, body: object, kind: CallKind) -> Mapping[str, tuple[str, str, str, str]]:
    """Return the same call for other programs. It is text before the body, its format, the body, and text after it."""
    text, short = json.dumps(body, indent=2, ensure_ascii=False), pformat(body, sort_dicts=False, width=76)
    fields = "".join(
        f' \\\n  -H "{field}"' for field in ("Authorization: Key $FAL_KEY", "Content-Type: application/json")
    )
    python, script = "import fal_client\n\n", 'import { fal } from "@fal-ai/client";\n\n'
    curl = (f"curl{' -N' * (kind is CallKind.STREAM)} {urls.run}{path}{fields} \\\n  -d '", "'")
    match kind:
        case CallKind.REALTIME:
            session = f'with fal_client.realtime("{name}", path="{path}") as connection:'
            connect = f'fal.realtime.connect("{name}", {{\n  path: "{path}",\n  onResult: console.log,\n}})'
            sends = "\n    connection.send(arguments)\n    print(connection.recv())"
            python_parts = (f"{python}arguments = ", f"\n\n{session}{sends}")
            script_parts = (f"{script}const connection = {connect};\nconnection.send(", ");")
        case CallKind.STREAM:
            name += path.removesuffix(_STREAM)
            each = f'for event in fal_client.stream(\n    "{name}",\n    arguments='
            python_parts = (python + each, ",\n):\n    print(event)")
            stream = f'const stream = await fal.stream("{name}", {{\n  input: '
            script_parts = (script + stream, ",\n});\nfor await (const event of stream) console.log(event);")
        case CallKind.CALL:
            name += path.rstrip("/")
            result = f'result = fal_client.subscribe(\n    "{name}",\n    arguments='
            python_parts = (python + result, ",\n)\nprint(result)")
            subscribe = f'const {{ data }} = await fal.subscribe("{name}", {{\n  input: '
            script_parts = (script + subscribe, ",\n});\nconsole.log(data);")
    found = {
        "Python": (python_parts[0], "python", short, python_parts[1]),
        "JavaScript": (script_parts[0], "json", text, script_parts[1]),
    }
    if kind is CallKind.REALTIME:
        return found
    return {"curl": (curl[0], "shell", text.replace("'", "'\\''"), curl[1]), **found}
