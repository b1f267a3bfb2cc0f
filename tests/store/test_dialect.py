"""The SQL that PostgreSQL would get. Running it there is for the conformance suite, with a database at hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from fal_server.store.dialect import contains, insert_missing, upsert
from fal_server.store.tables import APPS, LOG_LINES, METADATA, REQUESTS, SECRETS

POSTGRESQL = postgresql.dialect()
CONNECTION = SimpleNamespace(dialect=POSTGRESQL)


def sql(statement) -> str:
    return " ".join(str(statement.compile(dialect=POSTGRESQL)).split())


def test_upserts():
    assert "ON CONFLICT (environment, name) DO UPDATE SET sealed = excluded.sealed" in sql(upsert(CONNECTION, SECRETS))
    assert "name = excluded.name" not in sql(upsert(CONNECTION, APPS))
    assert sql(insert_missing(CONNECTION, LOG_LINES)).endswith("ON CONFLICT (runner_id, sequence) DO NOTHING")
    assert sql(insert_missing(CONNECTION, REQUESTS, unique="idempotency")).endswith(
        "ON CONFLICT (idempotency) DO NOTHING"
    )


def test_search_has_no_wildcards():
    found = sql(select(LOG_LINES.c.sequence).where(contains(CONNECTION, LOG_LINES.c.message, "50%_X")))
    assert "strpos(lower(log_lines.message), %(strpos_1)s" in found
    assert "LIKE" not in found


@pytest.mark.parametrize("table", METADATA.sorted_tables, ids=lambda table: table.name)
def test_tables(table):
    assert sql(CreateTable(table)).startswith(f"CREATE TABLE {table.name}")
    for index in table.indexes:
        assert index.name is not None
        assert len(index.name) < 60
        assert sql(CreateIndex(index)).startswith("CREATE INDEX")
