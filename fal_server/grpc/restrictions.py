"""Restricts callers whose keys are for one app or environment. They may only make requests about it."""

from __future__ import annotations

from google.protobuf.message import Message

from fal_server.access.resources import require_in_part, require_whole
from fal_server.core import names
from fal_server.core.identity import Principal


def require_named_app(caller: Principal, request: Message, fields: tuple[str, str] | None) -> None:
    """Refuse a request that is not about the key's app or environment.

    Args:
        fields: the request's fields for its app and its environment; None if it has none.

    Raises:
        PermissionDenied: it names none, so its subject is unknown.
        NotFound: it names another one.
        InvalidArgument: a name is not valid.
    """
    if not caller.scope.restrictions.limit:
        return
    app, environment = ("", "") if fields is None else (_text(request, field) for field in fields)
    # A missing app or environment may stand for all.
    if fields is None or not (app if fields[0] else environment):
        require_whole(caller)
    else:
        require_in_part(caller, app, names.environment_name(environment))


def _text(request: Message, path: str) -> str:
    value: object = request
    for name in filter(None, path.split(".")):
        value = getattr(value, name)
    return value if isinstance(value, str) else ""
