"""Alembic migrations, run at opening, without alembic.ini. For a new one, change tables.py, versions/ and HEAD."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy import inspect as inspector_of

from fal_server.core.faults import Unavailable

# The newest version; a test compares it with the newest file in versions/.
HEAD = "0034"


def bring_up_to_date(connection: Connection, name: str) -> None:
    """Run the missing migrations within the caller's transaction.

    Args:
        connection: in a transaction.
        name: the name of the database in messages.

    Raises:
        Unavailable: a newer version of this program wrote it.
    """
    version = version_of(connection)
    if version == HEAD:
        return  # a usual start saves the import of Alembic
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise Unavailable(
            f"{name} was written by a newer version of fal-grpc (its version is {version}, the newest known here "
            f"{HEAD}): install that version or a later one, or put back a backup from before it was used"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def version_of(connection: Connection) -> str | None:
    """Return the newest migration that has run; None if none has. Later ones compare as greater."""
    if not inspector_of(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
