"""The pages of an account. They are about keys, secrets, environments, drains, notices, accounts, and the audit log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from fal_server.access.permissions import PRESETS, SEE_ALL_ACCOUNTS, allows
from fal_server.core.accounts import AccountKind
from fal_server.core.drains import DrainFormat
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL, Principal
from fal_server.core.logs import LogLevel
from fal_server.core.notices import LIMITS, NoticeForm
from fal_server.http.dashboard.forms import decimal, entries, form_of, one_of, whole_number
from fal_server.http.dashboard.ui import Routes, Ui, back

routes = Routes()


@routes.page("/ui/keys")
async def _keys(ui: Ui, request: Request, caller: Principal, made: str = "") -> Response:
    keys = await ui.keys.list(caller.scope)
    return ui.pages.show(request, "keys.html", keys=keys[::-1], presets=list(PRESETS), made=made)


@routes.action("/ui/keys", again=_keys)
async def _create_key(ui: Ui, request: Request, caller: Principal) -> Response:
    form = await form_of(request)
    days = whole_number(form, "days")
    made = await ui.keys.create(
        caller,
        preset=form.get("preset", ""),
        alias=form.get("alias", "").strip(),
        expires_at=None if days is None else ui.pages.now() + timedelta(days=days),
    )
    return await _keys(ui, request, caller, ":".join(made))


@routes.action("/ui/keys/{key_id}/revoke", "/ui/keys")
async def _revoke_key(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.keys.revoke(caller.scope, request.path_params["key_id"])
    return "The key is revoked, and every call with it has ended."


@routes.page("/ui/secrets")
async def _secrets(ui: Ui, request: Request, caller: Principal) -> Response:
    chosen = request.query_params.get("environment") or "main"
    if request.method == "POST":
        chosen = (await form_of(request)).get("environment", "main")
    return ui.pages.show(
        request,
        "secrets.html",
        secrets=await ui.secrets.list(caller.scope, chosen),
        environments=[each.name for each in await ui.environments.list(caller.scope)],
        chosen=chosen,
    )


@routes.action("/ui/secrets", again=_secrets)
async def _set_secret(ui: Ui, request: Request, caller: Principal) -> Response:
    form = await form_of(request)
    name, environment = form.get("name", "").strip(), form.get("environment", "main")
    if not name:
        raise InvalidArgument("name", "name is empty: name the secret")
    await ui.secrets.set(caller.scope, name, form.get("value", ""), environment=environment)
    return _to_secrets(environment, f"{name} is set. Runners that start from now on get it.")


@routes.action("/ui/secrets/{name}/unset")
async def _unset_secret(ui: Ui, request: Request, caller: Principal) -> Response:
    environment = (await form_of(request)).get("environment", "main")
    await ui.secrets.unset(caller.scope, request.path_params["name"], environment=environment)
    return _to_secrets(environment, "The secret is gone.")


def _to_secrets(environment: str, notice: str) -> Response:
    return back(f"/ui/secrets?environment={quote(environment)}", notice)


@routes.page("/ui/environments")
async def _environments(ui: Ui, request: Request, caller: Principal) -> Response:
    return ui.pages.show(request, "environments.html", environments=await ui.environments.list(caller.scope))


@routes.action("/ui/environments", "/ui/environments", again=_environments)
async def _create_environment(ui: Ui, request: Request, caller: Principal) -> str:
    form = await form_of(request)
    name, description = form.get("name", "").strip(), form.get("description", "").strip()
    made = await ui.environments.create(caller.scope, name, description or None)
    return f"Environment {made.name} exists, without apps and secrets."


@routes.action("/ui/environments/{name}/delete", "/ui/environments")
async def _delete_environment(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.environments.delete(caller.scope, request.path_params["name"])
    return "The environment is deleted, with its secrets."


@routes.page("/ui/drains")
async def _drains(ui: Ui, request: Request, caller: Principal) -> Response:
    return ui.pages.show(
        request,
        "drains.html",
        drains=await ui.drains.list(caller.scope),
        formats=[each.value for each in DrainFormat],
        levels=[each.value for each in LogLevel],
    )


@routes.action("/ui/drains", "/ui/drains", again=_drains)
async def _create_drain(ui: Ui, request: Request, caller: Principal) -> str:
    form = await form_of(request)
    headers = [line.partition(":") for line in entries(form, "headers", "\n")]
    made = await ui.drains.create(
        caller.scope,
        form.get("name", "").strip(),
        form.get("url", "").strip(),
        form=one_of(form, "format", DrainFormat),
        apps=entries(form, "apps"),
        least_level=one_of(form, "least_level", LogLevel),
        headers={name.strip(): value.strip() for name, _, value in headers},
        signing_key=form.get("signing_key") or None,
    )
    return " ".join((f"Drain {made.drain.name} begins with the lines of the last half minute.", *made.warnings))


@routes.action("/ui/drains/{name}/pause", "/ui/drains")
async def _pause_drain(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.drains.pause(caller.scope, request.path_params["name"], paused=True)
    return "The drain is paused. Lines wait for it until they are too old to be kept."


@routes.action("/ui/drains/{name}/resume", "/ui/drains")
async def _resume_drain(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.drains.pause(caller.scope, request.path_params["name"], paused=False)
    return "The drain goes on with the lines that waited."


@routes.action("/ui/drains/{name}/delete", "/ui/drains")
async def _delete_drain(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.drains.delete(caller.scope, request.path_params["name"])
    return "The drain is deleted."


@routes.page("/ui/notices")
async def _notices(ui: Ui, request: Request, caller: Principal) -> Response:
    limits = {each.value: bounds for each, bounds in LIMITS.items() if not bounds.of_controller or _is_owner(caller)}
    return ui.pages.show(
        request,
        "notices.html",
        notices=await ui.notices.list(caller.scope),
        forms=[each.value for each in NoticeForm],
        limits=limits,
    )


@routes.action("/ui/notices", "/ui/notices", again=_notices)
async def _create_notice(ui: Ui, request: Request, caller: Principal) -> str:
    form = await form_of(request)
    chosen = [each.value for each in LIMITS if form.get(each.value, "").strip()]
    made = await ui.notices.create(
        caller.scope,
        form.get("name", "").strip(),
        form.get("url", "").strip(),
        form=one_of(form, "form", NoticeForm),
        thresholds={name: decimal(form, name, 0) for name in chosen},
        apps=entries(form, "apps"),
        signing_key=form.get("signing_key") or None,
        to=entries(form, "to"),
        sender=form.get("sender", "").strip() or None,
        password=form.get("password") or None,
    )
    return f"{made.notice.receiver} is told from now on. Send a test to see that it arrives."


@routes.action("/ui/notices/{name}/test", "/ui/notices")
async def _test_notice(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.notices.test(caller.scope, request.path_params["name"])
    return "The receiver took the test."


@routes.action("/ui/notices/{name}/delete", "/ui/notices")
async def _delete_notice(ui: Ui, request: Request, caller: Principal) -> str:
    await ui.notices.delete(caller.scope, request.path_params["name"])
    return "The notice is deleted."


@routes.page("/ui/accounts")
async def _accounts(ui: Ui, request: Request, caller: Principal, made: str = "") -> Response:
    mine, quotas = ui.accounts.account_of(caller), await ui.quotas.of_caller(caller)
    return ui.pages.show(
        request,
        "accounts.html",
        mine=mine,
        views=await ui.accounts.list(caller, everything=allows(caller, SEE_ALL_ACCOUNTS)),
        members=await ui.accounts.members(caller, mine.nickname) if mine.kind is AccountKind.TEAM else [],
        limits=asdict(quotas.quotas),
        used=quotas.used,
        kinds=[each.value for each in AccountKind],
        made=made,
    )


@routes.action("/ui/accounts", again=_accounts)
async def _create_account(ui: Ui, request: Request, caller: Principal) -> Response:
    form = await form_of(request)
    _, key = await ui.accounts.create(
        form.get("nickname", "").strip(), one_of(form, "kind", AccountKind), form.get("full_name", "").strip() or None
    )
    return await _accounts(ui, request, caller, ":".join(key))


@routes.page("/ui/audit")
async def _audit(ui: Ui, request: Request, caller: Principal) -> Response:
    before = whole_number(request.query_params, "before")
    return ui.pages.show(request, "audit.html", page=await ui.audit.page(caller.scope, before=before))


def _is_owner(caller: Principal) -> bool:
    return caller.scope.account == LOCAL
