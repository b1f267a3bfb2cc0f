"""The playground: calls an app from a form, shows its response, and the same call for other programs.

Streamed calls and realtime sessions go from the page's script to the app itself, over a WebSocket with a token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pprint import pformat
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from fal_server.access.permissions import require_app
from fal_server.access.tokens import Tokens
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.core.json_reader import read_json
from fal_server.core.queue import Answer
from fal_server.http.dashboard.app import back
from fal_server.http.dashboard.forms import form_of
from fal_server.http.dashboard.media import media_of
from fal_server.http.dashboard.pages import Pages, app_of, headers_of
from fal_server.http.dashboard.schema import endpoints, entered, example_of, fields_of, is_realtime
from fal_server.http.routes.guard import Guard
from fal_server.services.queue import Queue
from fal_server.services.revisions import Revisions
from fal_server.services.submission import Submission
from fal_server.services.views import Urls

_WAIT_SECONDS = 60.0
_TOKEN_SECONDS = 60.0
_OF_THE_FORM = "in."
_STREAM = "/stream"


class CallKind(StrEnum):
    """How an endpoint is usually called."""

    CALL = "call"
    STREAM = "stream"
    REALTIME = "realtime"


class PlaygroundPage:
    """The playground of each app.

    Args:
        urls: returns the addresses of an app.
    """

    def __init__(
        self,
        pages: Pages,
        guard: Guard,
        revisions: Revisions,
        queue: Queue,
        tokens: Tokens,
        urls: Callable[[AppId], Urls],
    ) -> None:
        self._pages = pages
        self._tokens = tokens
        self._revisions = revisions
        self._queue = queue
        self._urls = urls
        place = "/ui/apps/{app}/playground"
        self.routes = [
            guard.route("GET", place, self._form),
            guard.route("GET", f"{place}/{{endpoint:path}}", self._form),
            guard.route("POST", place, self._call),
            guard.route("POST", f"{place}/token", self._token),
        ]

    async def _token(self, request: Request, caller: Principal) -> Response:
        """Return a token with which the page's script opens a WebSocket to the app."""
        app_id = app_of(request, caller)
        require_app(caller, app_id)
        return PlainTextResponse(
            self._tokens.for_calls(caller, [str(app_id)], _TOKEN_SECONDS).text, headers=headers_of(request)
        )

    async def _form(self, request: Request, caller: Principal) -> Response:
        app_id = app_of(request, caller)
        require_app(caller, app_id)
        return await self._show(request, caller, app_id, f"/{request.path_params.get('endpoint', '')}", None, None)

    async def _call(self, request: Request, caller: Principal) -> Response:
        app_id, form = app_of(request, caller), await form_of(request)
        require_app(caller, app_id)
        path = form.get("path", "")
        values = {name[len(_OF_THE_FORM) :]: text for name, text in form.items() if name.startswith(_OF_THE_FORM)}
        description = (await self._revisions.metadata(caller.scope, str(app_id))).get("openapi")
        if path not in (endpoints(description) or ["/"]):  # it goes into the head of a request
            raise InvalidArgument("path", f"path is {path[:80]!r}: choose an endpoint on the page")
        if is_realtime(description, path):
            raise InvalidArgument("path", f"{path} takes messages of a realtime session: `Send` on the page begins one")
        how = form.get("send", "")
        if how.startswith("json"):
            try:
                body = read_json(form.get("json", "").encode())
            except ValueError as error:
                raise InvalidArgument("json", f"that is not JSON: {error}; go back and correct it") from error
        else:
            body = entered(fields_of(description, path), values)
        submission = Submission(
            app_id=app_id,
            path=path,
            headers=(("content-type", "application/json"), ("accept", "application/json")),
            body=json.dumps(body).encode(),
            caller=caller.key_id,
        )
        accepted = (await self._queue.submit(submission)).request
        place = f"/ui/apps/{quote(str(app_id))}/requests/{accepted.request_id}"
        if how.endswith("queue"):
            return back(place)
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._queue.finished(accepted.request_id)
        except TimeoutError:
            return back(place, "It is still at work; this page shows its answer when it has one.")
        done, answer = await self._queue.result(app_id, accepted.request_id)
        return await self._show(request, caller, app_id, path, body, (done.request_id, answer, done.error))

    async def _show(
        self,
        request: Request,
        caller: Principal,
        app_id: AppId,
        path: str,
        body: object,
        answer: tuple[str, Answer | None, str | None] | None,
    ) -> Response:
        description = (await self._revisions.metadata(caller.scope, str(app_id))).get("openapi")
        paths = endpoints(description) or ["/"]
        path = path if path in paths else paths[0]
        fields = fields_of(description, path)
        sent = example_of(fields) if body is None else body
        request_id, content, error = answer or ("", None, None)
        kind = CallKind.STREAM if path.endswith(_STREAM) else CallKind.CALL
        kind = CallKind.REALTIME if is_realtime(description, path) else kind
        name = f"{self._pages.nickname(caller)}/{app_id}"
        return self._pages.show(
            request,
            "playground.html",
            external=True,
            app=str(app_id),
            paths=paths,
            chosen=path,
            fields=fields,
            values=_texts(sent),
            json_text=json.dumps(sent, indent=2, ensure_ascii=False),
            kind=kind,
            socket=quote(f"/{name}{path}"),
            snippets=snippets(self._urls(app_id), name, path, sent, kind),
            request_id=request_id,
            answer=None if content is None else media_of(content),
            error=error,
        )


def _texts(sent: object) -> Mapping[str, str]:
    if not isinstance(sent, Mapping):
        return {}
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in sent.items()}


def snippets(urls: Urls, name: str, path: str, body: object, kind: CallKind) -> Mapping[str, tuple[str, str, str, str]]:
    """Return the same call for other programs: text before the body, its format, the body, and text after it."""
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
