"""Wheels from source texts, at an address for a controller's builds."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def served(folder: Path, package: str, sources: Mapping[str, str]) -> Generator[str]:
    """Build a wheel of a package, version 1.0, in a folder. Yield its loopback address.

    Args:
        sources: the text of each file, by its name in the package.
    """
    about = f"{package}-1.0.dist-info"
    content = {f"{package}/{name}": text for name, text in {"__init__.py": "", **sources}.items()} | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    name = f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()
