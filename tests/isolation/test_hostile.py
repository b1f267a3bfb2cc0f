"""A hostile app at every level of isolation, as root and user. The results agree with docs/explanation/security.

`python -m tests.isolation.test_hostile` writes the table there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fal_runner.isolation.levels import Isolation
from tests.isolation.hostile import ATTACKS
from tests.isolation.tables import LEVELS, USERS, Found, Table, fight

ARENA = "arena"
WHERE = ("app", "command")
# Attacks that depend on the kernel, too: on Yama for tracing, on Linux 6.12 for abstract sockets.
KERNELS_OWN = {"traces_a_runner", "connects_to_an_abstract_socket", "reads_runners_variables", "makes_a_user_namespace"}
# The controller allows none, and runners inherit that; root may raise the limit.
NOWHERE = "dumps_core"
# The arena calls the same app and its metrics with their keys, and gets answers.
PROVEN_ELSEWHERE = (
    "calls_an_app",
    "calls_an_app_with_a_key_of_its_own",
    "reads_an_apps_metrics",
    "reads_an_apps_metrics_with_a_key_of_its_own",
)
OPEN_IN_A_SANDBOX = {"app": {"connects_to_a_port"}, "command": {"connects_to_a_port", "connects_to_an_abstract_socket"}}


def cell(name: str, found: Found) -> str:
    app, command = (found[where][name] for where in WHERE)
    return "no" if not app and not command else "**yes**" if app else "by `exec`"


TABLE = Table(
    arena=ARENA,
    mark="the hostile app",
    subject="a runner can",
    attacks={name: says for name, (_, says) in ATTACKS.items()},
    cell=cell,
)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("user", USERS)
def test_a_sandbox_stops_it(user: str, name: str, where: str) -> None:
    if name in OPEN_IN_A_SANDBOX[where] or (name == "connects_to_an_abstract_socket" and not _scopes_sockets()):
        return
    assert not fight(ARENA, Isolation.PROCESS, user)[where][name]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_documentation_promises_no_more(level: Isolation, user: str) -> None:
    column, rows, found = TABLE.column(level, user), TABLE.documented(), fight(ARENA, level, user)
    assert rows.keys() == {says for _, says in ATTACKS.values()}
    for name, (_, says) in ATTACKS.items():
        if name not in KERNELS_OWN and (name != NOWHERE or user != "root"):
            assert rows[says][column] == cell(name, found), says


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_runners_log_names_the_level(level: Isolation, user: str) -> None:
    assert f"isolation: {level.value}" in fight(ARENA, level, user)["note"]


def test_the_attacks_are_real() -> None:
    """An attack that succeeds nowhere proves nothing."""
    tame = {says for says, cells in TABLE.documented().items() if "**yes**" not in cells}
    assert tame == {ATTACKS[name][1] for name in (NOWHERE, *PROVEN_ELSEWHERE)}


def _scopes_sockets() -> bool:
    release = os.uname().release.split(".")
    listed = Path("/sys/kernel/security/lsm")
    return (int(release[0]), int(release[1])) >= (6, 12) and (not listed.exists() or "landlock" in listed.read_text())


if __name__ == "__main__":
    TABLE.write()
