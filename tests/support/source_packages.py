"""Source packages whose build runs a test's code. A server has them."""

from __future__ import annotations

import io
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from fal_server.builders.configuration import ALWAYS

NAME = "fal-test-source"
_BACKEND = """
import pathlib, zipfile

INFO = "fal_test_source-1.0.dist-info"
FILES = {
    INFO + "/METADATA": "Metadata-Version: 2.1\\nName: fal-test-source\\nVersion: 1.0\\n",
    INFO + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}

def build_wheel(directory, config_settings=None, metadata_directory=None):
    files = {**FILES, **code()}
    files[INFO + "/RECORD"] = "".join(name + ",,\\n" for name in [*files, INFO + "/RECORD"])
    with zipfile.ZipFile(pathlib.Path(directory) / "fal_test_source-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "fal_test_source-1.0-py3-none-any.whl"
"""


def write_source(directory: Path, code: str, files: Mapping[str, str] | None = None) -> str:
    """Write a source distribution in a directory; return its name.

    Args:
        code: the body of a function that runs during the build, and returns the files of the wheel.
        files: further files beside it.
    """
    backend = _BACKEND + "\ndef code():\n" + textwrap.indent(textwrap.dedent(code), "    ")
    settings = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    settings += f'[project]\nname = "{NAME}"\nversion = "1.0"\n'
    metadata = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"
    content = {"backend.py": backend, "pyproject.toml": settings, "PKG-INFO": metadata, **(files or {})}
    name = "fal_test_source-1.0.tar.gz"
    with tarfile.open(directory / name, "w:gz") as archive:
        for path, text in content.items():
            entry = tarfile.TarInfo(f"fal_test_source-1.0/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return name


def requirements(directory: Path, index: str, name: str) -> list[list[str]]:
    """Return two layers. They are this distribution, and empty packages in place of the standard ones."""
    stubs: list[str] = []
    for package in ALWAYS:
        wheel, info = f"{package}-1.0-py3-none-any.whl", f"{package}-1.0.dist-info"
        files = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(directory / wheel, "w") as archive:
            for path, text in {**files, f"{info}/RECORD": "".join(f"{path},,\n" for path in files)}.items():
                archive.writestr(path, text)
        stubs.append(f"{package} @ {index}/{wheel}")
    return [[f"{NAME} @ {index}/{name}"], stubs]


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """Serve the files of a directory on loopback; yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
