"""Shows apps and revisions. They are JSON with the keys of the published client, or tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from fal_cli.presentation.listing import Field, Listing, time_field, write_items
from fal_cli.presentation.output import print_note

if TYPE_CHECKING:
    from fal.api import AliasInfo, ApplicationInfo

_KEYS = (
    "alias",
    "revision",
    "auth_mode",
    "keep_alive",
    "max_concurrency",
    "max_multiplexing",
    "active_runners",
    "min_concurrency",
    "concurrency_buffer",
    "concurrency_buffer_perc",
    "scaling_delay",
    "machine_types",
    "request_timeout",
    "startup_timeout",
    "valid_regions",
    "environment_name",
    "request_start_timeout",
)
# For an app whose starts fail; the published client has no such keys.
_FAILURE_KEYS = ("failed_starts", "last_failure", "failed_runner_id")
Item = TypeVar("Item")


def write_apps(args: argparse.Namespace, apps: Sequence[AliasInfo]) -> None:
    """Write apps to standard output. Notes on rollouts and failing starts go to standard error."""
    write_items(args, APPS, apps)
    if args.output in {"pretty", "wide"}:
        for app in apps:
            if app.is_rolling:
                print_note(f"{app.alias} is being rolled out: new runners take over from the old ones.")
        write_failures(apps)


def write_failures(apps: Iterable[AliasInfo]) -> None:
    """Report apps without runners because their starts fail, and why. It goes to standard error."""
    for app in apps:
        if app.failed_starts and not app.active_runners:
            starts = (
                "its last start failed" if app.failed_starts == 1 else f"its last {app.failed_starts} starts failed"
            )
            print_note(f"{app.alias} has no runner, {starts}: {app.last_failure or 'no reason is known'}")
            if app.failed_runner_id:
                print_note(f"  `fal runners logs {app.failed_runner_id}` shows what it wrote")


def app_name(app: AliasInfo) -> str:
    """Return an app's name without its environment."""
    return app.alias.removesuffix(f"--{app.environment_name or 'main'}")


def _buffer(app: AliasInfo) -> str:
    if app.concurrency_buffer_perc:
        return f"{app.concurrency_buffer_perc}%, min {app.concurrency_buffer}"
    return str(app.concurrency_buffer)


def _number(title: str, value: Callable[[Item], int | None], *, wide: bool = True) -> Field[Item]:
    def text(item: Item) -> str:
        number = value(item)
        return "-" if number is None else str(number)

    return Field(title=title, text=text, sort_key=value, folds=True, wide=wide)


def _annotations(revision: ApplicationInfo) -> str:
    return " ".join(f"{name}={value}" for name, value in revision.annotations.items())


def _revision_document(revision: ApplicationInfo) -> Mapping[str, object]:
    names = (name for name in revision.__dataclass_fields__ if name not in {"created_at", "annotations"})
    return {
        **{name: getattr(revision, name) for name in names},
        "created_at": revision.created_at.isoformat(),
        "annotations": dict(revision.annotations),
    }


def _app_document(app: AliasInfo) -> Mapping[str, object]:
    keys = (*_KEYS, *_FAILURE_KEYS) if app.failed_starts else _KEYS
    return {key: getattr(app, key) for key in keys}


APPS: Listing[AliasInfo] = Listing(
    noun="apps",
    fields=(
        Field(title="Name", text=app_name),
        Field(title="Env", text=lambda app: app.environment_name or "main", folds=True),
        Field(title="Revision", shortens=True, text=lambda app: app.revision),
        Field(title="Auth", text=lambda app: app.auth_mode, folds=True),
        _number("Min Concurrency", lambda app: app.min_concurrency),
        _number("Max Concurrency", lambda app: app.max_concurrency),
        Field(title="Concurrency Buffer", text=_buffer, folds=True, wide=True),
        _number("Scaling Delay", lambda app: app.scaling_delay),
        _number("Max Multiplexing", lambda app: app.max_multiplexing),
        _number("Keep Alive", lambda app: app.keep_alive),
        _number("Request Timeout", lambda app: app.request_timeout),
        _number("Request Start Timeout", lambda app: app.request_start_timeout),
        _number("Startup Timeout", lambda app: app.startup_timeout),
        Field(title="Machine Type", text=lambda app: " ".join(app.machine_types), folds=True),
        _number("Runners", lambda app: app.active_runners, wide=False),
        Field(title="Regions", text=lambda app: " ".join(app.valid_regions), folds=True, wide=True),
    ),
    document=_app_document,
    item_name=lambda app: app.alias,
)

REVISIONS: Listing[ApplicationInfo] = Listing(
    noun="revisions",
    fields=(
        Field(title="Revision", shortens=True, text=lambda revision: revision.application_id),
        Field(title="Env", text=lambda revision: revision.environment_name or "main", folds=True, wide=True),
        _number("Min Concurrency", lambda revision: revision.min_concurrency),
        _number("Max Concurrency", lambda revision: revision.max_concurrency),
        _number("Max Multiplexing", lambda revision: revision.max_multiplexing),
        _number("Keep Alive", lambda revision: revision.keep_alive),
        _number("Request Timeout", lambda revision: revision.request_timeout),
        _number("Request Start Timeout", lambda revision: revision.request_start_timeout),
        _number("Startup Timeout", lambda revision: revision.startup_timeout),
        Field(title="Machine Type", text=lambda revision: " ".join(revision.machine_types), folds=True, wide=True),
        _number("Runners", lambda revision: revision.active_runners, wide=False),
        Field(title="Regions", text=lambda revision: " ".join(revision.valid_regions), folds=True, wide=True),
        time_field("Created", lambda revision: revision.created_at),
        Field(title="App", text=lambda revision: revision.app_name or ""),
        Field(title="Current", text=lambda revision: "*" if revision.current else ""),
        Field(title="Message", text=lambda revision: revision.message or "", folds=True),
        Field(title="Annotations", text=_annotations, folds=True),
    ),
    document=_revision_document,
    item_name=lambda revision: revision.application_id,
)
