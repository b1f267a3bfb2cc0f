"""Shows apps and revisions: as JSON with the keys of the published client, or as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fal_cli.presentation.output import write_list, write_table
from fal_cli.presentation.table import Column

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


def _columns(*titles: str) -> tuple[Column, ...]:
    whole = {"Name", "Revision"}
    return tuple(Column(title=title, folds=title not in whole) for title in titles)


_APP_COLUMNS = _columns(
    "Name",
    "Env",
    "Revision",
    "Auth",
    "Min Concurrency",
    "Max Concurrency",
    "Concurrency Buffer",
    "Scaling Delay",
    "Max Multiplexing",
    "Keep Alive",
    "Request Timeout",
    "Request Start Timeout",
    "Startup Timeout",
    "Machine Type",
    "Runners",
    "Regions",
)
_REVISION_COLUMNS = _columns(
    "Revision",
    "Env",
    "Min Concurrency",
    "Max Concurrency",
    "Max Multiplexing",
    "Keep Alive",
    "Request Timeout",
    "Request Start Timeout",
    "Startup Timeout",
    "Machine Type",
    "Runners",
    "Regions",
    "Created",
)


def write_apps(form: str, apps: Sequence[AliasInfo]) -> None:
    """Write apps to standard output as pretty, json, yaml or jsonl."""
    if form == "pretty":
        write_table(_APP_COLUMNS, map(_app_row, apps))
    else:
        write_list(form, "apps", map(_app_document, apps))


def write_revisions(revisions: Sequence[ApplicationInfo]) -> None:
    """Write revisions to standard output as a table."""
    write_table(_REVISION_COLUMNS, map(_revision_row, revisions))


def _app_document(app: AliasInfo) -> Mapping[str, object]:
    return {key: getattr(app, key) for key in _KEYS}


def _app_row(app: AliasInfo) -> tuple[str, ...]:
    environment = app.environment_name or "main"
    buffer = str(app.concurrency_buffer)
    if app.concurrency_buffer_perc:
        buffer = f"{app.concurrency_buffer_perc}%, min {buffer}"
    return (
        app.alias.removesuffix(f"--{environment}"),
        environment,
        app.revision,
        app.auth_mode,
        str(app.min_concurrency),
        str(app.max_concurrency),
        buffer,
        str(app.scaling_delay),
        str(app.max_multiplexing),
        str(app.keep_alive),
        str(app.request_timeout),
        _or_dash(app.request_start_timeout),
        str(app.startup_timeout),
        " ".join(app.machine_types),
        str(app.active_runners),
        " ".join(app.valid_regions),
    )


def _revision_row(revision: ApplicationInfo) -> tuple[str, ...]:
    return (
        revision.application_id,
        revision.environment_name or "main",
        str(revision.min_concurrency),
        str(revision.max_concurrency),
        str(revision.max_multiplexing),
        str(revision.keep_alive),
        str(revision.request_timeout),
        _or_dash(revision.request_start_timeout),
        str(revision.startup_timeout),
        " ".join(revision.machine_types),
        str(revision.active_runners),
        " ".join(revision.valid_regions),
        str(revision.created_at),
    )


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
