"""A runner in a sandbox reads shared directories. It writes to them only if the owner allows it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controller import running

APP = """
import fal
class Shows(fal.App, name="shows"):
    app_auth = "public"
    machine_type = "XS"
    @fal.endpoint("/")
    def go(self) -> dict[str, str]:
        said = {}
        for name, path, mode in CASES:
            try:
                with open(path, mode) as file:
                    said[name] = file.read() if mode == "r" else str(file.write("x"))
            except OSError as error:
                said[name] = error.strerror
        return said
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir="/var/tmp"))  # not below /tmp, which a sandbox has of its own
    yield made
    shutil.rmtree(made)


def test_a_sandbox_has_what_is_shared_and_no_more(folder: Path, tmp_path: Path) -> None:
    models, work, beside = (folder / name for name in ("models", "work", "beside"))
    for directory in (models, work, beside):
        directory.mkdir()
        (directory / "file").write_text(directory.name)
    (models / "out").symlink_to(beside / "file")
    cases = [
        ("weights", f"{models}/file", "r"),
        ("overwritten", f"{models}/file", "w"),
        ("added", f"{models}/new", "w"),
        ("work", f"{work}/new", "w"),
        ("beside", f"{beside}/file", "r"),
        ("through a link", f"{models}/out", "r"),
    ]
    source = tmp_path / "shows.py"
    source.write_text(APP.replace("CASES", repr(cases)))
    options = ("--share-directory", str(models), "--share-directory", f"{work}:rw")
    with running(tmp_path / "state", *options, isolation="process") as controller:
        controller.fal("deploy", f"{source}::Shows")
        assert controller.call("/local/shows/", {}).json() == {
            "weights": "models",
            "overwritten": "Read-only file system",
            "added": "Read-only file system",
            "work": "1",
            "beside": "No such file or directory",
            "through a link": "No such file or directory",
        }
        shown = controller.fal("status").stdout
        assert f"Shared:      {models} (read-only), {work} (read and write)" in shown
    assert (models / "file").read_text() == "models"
    assert (work / "new").read_text() == "x"
