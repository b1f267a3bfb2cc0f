"""Directories that the owner shares with runners: syntax, and which are refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fal_server.composition.options import add_options, as_arguments
from fal_server.composition.shared_directories import SharedDirectory, check_shared, shared_directory
from fal_server.core.faults import Unavailable

MODELS = Path("/var/tmp")  # a directory that is there; nothing is written


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(list(arguments))


def test_what_is_written_reaches_another_process() -> None:
    options = parsed("--share-directory", "models", "--share-directory", "/a b:rw", "--share-directory=/c:ro")
    assert parsed(*as_arguments(options)).share_directory == options.share_directory
    assert [shared_directory(text) for text in options.share_directory] == [
        SharedDirectory(Path("models").absolute()),
        SharedDirectory(Path("/a b"), writable=True),
        SharedDirectory(Path("/c")),
    ]
    assert str(SharedDirectory(Path("/c"))) == "/c (read-only)"


@pytest.mark.parametrize("text", ["", ":rw", "/a\tb", "/a\nb"])
def test_what_is_no_path(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(f"--share-directory={text}")
    assert "PATH or PATH:rw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "would show the state directory"),
        ("{home}", "would show the state directory"),
        ("{home}/state", "would show the state directory"),
        ("{home}/state/blobs", "would show the state directory"),
        ("{home}/link", "would show the state directory"),
        ("{home}/content", "with the code and files of all accounts"),
        ("{home}/content/objects", "with the code and files of all accounts"),
        ("{home}/short", "with the controller's socket"),
        ("{home}/missing", "is not a directory"),
        ("{home}/file", "is not a directory"),
        ("/usr/share", "is in every sandbox already"),
        ("/etc", "is below /etc, which each sandbox has of its own"),
        ("/proc/self", "is below /proc"),
        ("{home}/beside", "is below /tmp"),
    ],
)
def test_what_no_runner_may_see_is_refused(path: str, said: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "blobs").mkdir(parents=True)
    for name in ("beside", "short", "content/objects"):
        (tmp_path / name).mkdir(parents=True)
    others = (tmp_path / "content", tmp_path / "short")
    (tmp_path / "link").symlink_to(state)
    (tmp_path / "file").write_text("")
    directory = Path(path.format(home=tmp_path))
    with pytest.raises(Unavailable, match=said):
        check_shared([SharedDirectory(MODELS), SharedDirectory(directory, writable=True)], state, *others)
    check_shared([SharedDirectory(MODELS)], state, *others)
