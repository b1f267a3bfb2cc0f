"""A hostile package at every level of isolation, against docs/explanation/security.

`python -m tests.isolation.test_hostile_build` writes the table there.
"""

from __future__ import annotations

import pytest

from fal_runner.isolation.levels import Isolation
from tests.isolation.hostile_build import ATTACKS
from tests.isolation.tables import LEVELS, USERS, Found, Table, fight

ARENA = "build_arena"
WHERE = ("build", "start")
# These depend on the kernel, too: on Yama, on Linux 6.12, and on control groups for root.
KERNELS_OWN = {"connects_to_an_abstract_socket", "makes_a_user_namespace", "leaves_a_process"}
OPEN_IN_A_SANDBOX = {"connects_to_a_port", "writes_its_accounts_cache", "connects_to_an_abstract_socket"}
NOWHERE = "sees_passwords"


def cell(name: str, found: Found) -> str:
    return "**yes**" if any(found[where][name] for where in WHERE) else "no"


TABLE = Table(
    arena=ARENA,
    mark="the hostile package",
    subject="a build can",
    attacks={name: says for name, (_, says) in ATTACKS.items()},
    cell=cell,
)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in OPEN_IN_A_SANDBOX])
@pytest.mark.parametrize("user", USERS)
def test_a_sandbox_stops_it(user: str, name: str, where: str) -> None:
    assert not fight(ARENA, Isolation.PROCESS, user)[where][name]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_documentation_promises_no_more(level: Isolation, user: str) -> None:
    column, rows, found = TABLE.column(level, user), TABLE.documented(), fight(ARENA, level, user)
    assert rows.keys() == {says for _, says in ATTACKS.values()}
    for name, (_, says) in ATTACKS.items():
        if name not in KERNELS_OWN:
            assert rows[says][column] == cell(name, found), says


def test_the_attacks_are_real() -> None:
    """An attack that succeeds nowhere proves nothing. Another test of the builder shows that the variable exists."""
    tame = {says for says, cells in TABLE.documented().items() if "**yes**" not in cells}
    assert tame == {ATTACKS[NOWHERE][1]}


if __name__ == "__main__":
    TABLE.write()
