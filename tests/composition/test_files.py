"""The socket for runners is in the state directory. If that path is too long, it is elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fal_server.composition.files import remove_socket_directory, socket_path
from fal_server.core.faults import Unavailable


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a temporary folder of one's own. The path of pytest's is too long for a socket."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_a_path_that_fits_is_taken() -> None:
    assert socket_path(Path("/s/api.sock")) == Path("/s/api.sock")


def test_a_path_that_is_too_long_moves_to_a_directory_of_ones_own(temporary: Path) -> None:
    wanted = Path("/", *["deep"] * 30, "api.sock")
    found = socket_path(wanted)
    assert found == socket_path(wanted)  # runners of an earlier start use it
    assert found.parent.parent == temporary
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert found != socket_path(Path("/", *["other"] * 30, "api.sock"))
    found.parent.chmod(0o755)
    with pytest.raises(Unavailable, match="not this user's alone"):
        socket_path(wanted)


def test_the_directory_goes_with_its_socket(temporary: Path) -> None:
    wanted = Path("/", *["deep"] * 30, "api.sock")
    found = socket_path(wanted)
    found.touch()
    remove_socket_directory(wanted)
    assert list(temporary.iterdir()) == []
    remove_socket_directory(wanted)
    other = socket_path(wanted).with_name("other")
    other.touch()
    remove_socket_directory(wanted)
    assert other.exists()
