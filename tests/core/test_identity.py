"""Ids of apps keep their form. A scope reaches its own account, within its restrictions."""

from __future__ import annotations

import pytest

from fal_server.core.identity import LOCAL, AccountId, AppId, Restrictions, Scope

OTHER = AccountId("other")


@pytest.mark.parametrize(
    ("full_name", "environment", "name"),
    [("hello", "main", "hello"), ("hello--dev", "dev", "hello"), ("a-b.c_d--e-f", "e-f", "a-b.c_d")],
)
def test_an_id_is_the_full_name_and_back(full_name, environment, name):
    app = AppId.parse(LOCAL, full_name)
    assert app == AppId(account=LOCAL, environment=environment, name=name)
    assert str(app) == full_name


def test_the_same_name_in_two_accounts_is_two_apps():
    assert AppId.parse(LOCAL, "hello") != AppId.parse(OTHER, "hello")


@pytest.mark.parametrize(
    ("account", "full_name", "restrictions", "reached"),
    [
        (LOCAL, "hello", Restrictions(), True),
        (OTHER, "hello", Restrictions(), False),
        (LOCAL, "hello", Restrictions(apps=frozenset({AppId.parse(LOCAL, "hello")})), True),
        (LOCAL, "hello--dev", Restrictions(apps=frozenset({AppId.parse(LOCAL, "hello")})), False),
        (OTHER, "hello", Restrictions(apps=frozenset({AppId.parse(OTHER, "hello")})), False),
        (LOCAL, "hello--dev", Restrictions(environments=frozenset({"dev"})), True),
        (LOCAL, "hello", Restrictions(environments=frozenset({"dev"})), False),
    ],
)
def test_a_scope_reaches(account, full_name, restrictions, reached):
    scope = Scope(account=LOCAL, permissions=frozenset({"*"}), restrictions=restrictions)
    assert scope.reaches(AppId.parse(account, full_name)) is reached
