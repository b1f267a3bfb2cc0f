"""Resolves ids on a command line by a unique prefix. It also lists them for completion."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from fal_cli.exit_codes import CommandError, ExitCode

if TYPE_CHECKING:
    from fal.api import RunnerInfo, SyncServerlessClient

_FULL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16}|[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f][0-9a-f-]*")
_RUNNER_HISTORY = timedelta(hours=24)
_SHOWN_CANDIDATES = 10
_LISTED_REQUESTS = 1000
_SHORT = 8


class Candidate(NamedTuple):
    """An id, with a description for people."""

    id: str
    description: str = ""


Lister = Callable[["SyncServerlessClient", argparse.Namespace], Iterable[Candidate]]


class Kind(NamedTuple):
    """A kind of id.

    Attributes:
        plural: the plural of its name, for messages.
        listers: list the ids; the next one is asked only if no earlier one has a match.
        name: its name.
        shown_by: the command that lists them.
    """

    plural: str
    listers: tuple[Lister, ...]
    name: str = ""
    shown_by: str = ""


def short_ids(texts: Sequence[str]) -> list[str]:
    """Return the ids among texts as unique prefixes; other texts stay unchanged."""
    ids = {text for text in texts if _FULL_ID.fullmatch(text)}
    length = _SHORT
    while len({text[:length] for text in ids}) < len(ids):
        length += 1
    return [text[:length].rstrip("-") if text in ids else text for text in texts]


def resolve(client: SyncServerlessClient, kind: Kind, text: str, args: argparse.Namespace) -> str:
    """Return the id that `text` is or uniquely abbreviates. It is `text` itself if there is none.

    The controller then reports that there is no such id. Only a possible prefix is looked up, so that a command with a
    complete id, or an id of another form, sends only what the published client sends.

    Raises:
        CommandError: several ids begin with `text`; the message lists them.
    """
    from fal.api import FalError

    if _FULL_ID.fullmatch(text) or not _PREFIX.fullmatch(text):
        return text
    for lister in kind.listers:
        try:
            found = {candidate.id: candidate for candidate in lister(client, args) if candidate.id.startswith(text)}
        except FalError:
            return text  # the command itself may be permitted although the list is not
        if text in found:
            return text
        if len(found) > 1:
            raise CommandError(_ambiguous(kind, text, list(found.values())), ExitCode.USAGE)
        if found:
            return next(iter(found))
    return text


def require(client: SyncServerlessClient, kind: Kind, text: str, args: argparse.Namespace) -> str:
    """Return `text`, an id or a name. Raise an error if nothing of this kind has it.

    If the caller may not list them, there is no error.
    """
    from fal.api import PermissionDeniedError, UnimplementedError

    try:
        exists = any(candidate.id == text for lister in kind.listers for candidate in lister(client, args))
    except (PermissionDeniedError, UnimplementedError):
        return text
    if not exists:
        raise CommandError(f"{kind.name} '{text}' not found: `{kind.shown_by}` shows which exist")
    return text


def _ambiguous(kind: Kind, text: str, candidates: list[Candidate]) -> str:
    lines = [f"'{text}' is the beginning of {len(candidates)} {kind.plural}:"]
    lines += [f"  {candidate.id}  {candidate.description}".rstrip() for candidate in candidates[:_SHOWN_CANDIDATES]]
    if len(candidates) > _SHOWN_CANDIDATES:
        lines.append(f"  and {len(candidates) - _SHOWN_CANDIDATES} more")
    return "\n".join([*lines, "Write more of it."])


def _runner(runner: RunnerInfo) -> Candidate:
    return Candidate(runner.runner_id, f"{runner.alias}  {runner.state.value}")


def _live_runners(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    return map(_runner, client.runners.list())


def _all_runners(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    return map(_runner, client.runners.list(since=datetime.now(UTC) - _RUNNER_HISTORY))


def _execs(client: SyncServerlessClient, args: argparse.Namespace) -> Iterable[Candidate]:
    for found in client.runners.execs(getattr(args, "runner", None)):
        yield Candidate(found.exec_id, " ".join(found.command)[:60] or "(login shell)")


def _revisions(client: SyncServerlessClient, args: argparse.Namespace) -> Iterable[Candidate]:
    app, environment = getattr(args, "app_name", None), getattr(args, "env", None)
    # A command without an environment option takes revisions of all environments.
    everywhere = [None] if hasattr(args, "env") else [found.name for found in client.environments.list()]
    for name in everywhere:
        for revision in client.apps.list_rev(app, environment_name=name or environment):
            yield Candidate(revision.application_id, f"{revision.created_at.astimezone():%Y-%m-%d %H:%M:%S}")


def _keys(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    for key in client.keys.list():
        yield Candidate(key.key_id, key.alias)


def _requests(client: SyncServerlessClient, args: argparse.Namespace) -> Iterable[Candidate]:
    for request in client.queue.list(args.app_name, limit=_LISTED_REQUESTS):
        yield Candidate(request.request_id, request.state.value)


def _ended_requests(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    for request in client.requests.list(limit=_LISTED_REQUESTS):
        yield Candidate(request.request_id, request.app)


def _apps(client: SyncServerlessClient, args: argparse.Namespace) -> Iterable[Candidate]:
    from fal_cli.presentation.apps import app_name

    for app in client.apps.list(environment_name=getattr(args, "env", None)):
        yield Candidate(app_name(app))


def _remote_paths(client: SyncServerlessClient, args: argparse.Namespace) -> Iterable[Candidate]:
    """Yield the entries of the directory that is being typed. They have the typed form."""
    from fal.files import Files

    directory = args.typed.rpartition("/")[0] + "/" if "/" in args.typed else ""
    for entry in Files(client.rest()).entries(directory or "/data"):
        yield Candidate(f"{directory}{entry.name}{'' if entry.is_file else '/'}")


def _secrets(client: SyncServerlessClient, args: argparse.Namespace) -> Iterable[Candidate]:
    for secret in client.secrets.list(environment_name=args.env):
        yield Candidate(secret.name)


def _drains(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    for drain in client.drains.list():
        yield Candidate(drain.name, drain.format)


def _notices(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    for notice in client.notices.list():
        yield Candidate(notice.name, notice.form)


def _environments(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    for environment in client.environments.list():
        yield Candidate(environment.name)


def _teams(client: SyncServerlessClient, _args: argparse.Namespace) -> Iterable[Candidate]:
    for account in client.accounts.list():
        yield Candidate(account.nickname, account.full_name)


RUNNERS = Kind("runners", (_live_runners, _all_runners))
EXECS = Kind("commands", (_execs,))
REVISIONS = Kind("revisions", (_revisions,), "revision", "fal apps list-rev")
KEYS = Kind("keys", (_keys,), "key", "fal keys list")
REQUESTS = Kind("requests", (_requests,))
ENDED_REQUESTS = Kind("requests", (_ended_requests,))
# These are names, so they are completed but not resolved.
APPS = Kind("applications", (_apps,), "Application", "fal apps list")
SECRETS = Kind("secrets", (_secrets,), "secret", "fal secrets list")
REMOTE_PATHS = Kind("files", (_remote_paths,))
DRAINS = Kind("drains", (_drains,), "drain", "fal drains list")
NOTICES = Kind("notices", (_notices,), "notice", "fal notices list")
ENVIRONMENTS = Kind("environments", (_environments,), "environment", "fal environments list")
TEAMS = Kind("teams", (_teams,), "team", "fal teams list")
