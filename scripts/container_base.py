"""Create the base image of the container tests. There may be no registry within reach.

It is a root file system from packages of this machine's Debian release: a shell, some tools and Python. The packages
that a deploy adds to an app's requirements are installed, or are in a directory that pip uses, so that builds need no
network. The published client adds other packages, in the versions of requirements/interop.txt.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from fal.deploy.serving import serving_requirements

# Compiled packages, such as grpcio, need libstdc++6.
PACKAGES = ["base-files", "base-passwd", "bash", "coreutils", "dash", "grep", "libstdc++6", "procps", "python3"]
LOADERS = ("cloudpickle", "grpcio", "pip")
# The published client adds these to an app that serves HTTP; it pins FastAPI to another version than ours.
PUBLISHED = ("httpx", "packaging", "starlette-exporter", "structlog", "tblib", "tomli", "tomli-w")
PUBLISHED_PIN = "fastapi"
INTEROP = Path(__file__).parents[1] / "requirements" / "interop.txt"
WHEELS = Path("/srv/wheels")


def download(folder: Path) -> list[Path]:
    """Download the packages and their dependencies, by this machine's package lists."""
    (folder / "partial").mkdir(parents=True)
    status = folder / "status"  # the state of a system without packages
    status.touch()
    options = {
        "Dir::State::status": status,
        "Dir::Cache::archives": folder,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "APT::Keep-Downloaded-Packages": "true",
        "Debug::NoLocking": "true",
    }
    command = ["apt-get", "--quiet=2", "--yes", "--download-only"]
    for name, value in options.items():
        command += ["--option", f"{name}={value}"]
    subprocess.run([*command, "install", *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.deb"))


def settle(root: Path) -> None:
    """Do what the tests need of the packages' scripts."""
    shutil.copy(root / "usr/share/base-passwd/passwd.master", root / "etc/passwd")
    shutil.copy(root / "usr/share/base-passwd/group.master", root / "etc/group")
    for link, place in (("sh", "dash"), ("awk", "mawk")):
        if not (root / "bin" / link).is_symlink() and (root / "bin" / place).exists():
            (root / "bin" / link).symlink_to(place)
    for name in ("doc", "man", "locale", "info"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    (root / "etc/pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {WHEELS}\n")


def published(name: str) -> str:
    """Return a package's requirement in the published client's lock file."""
    (found,) = re.findall(rf"^{name}==[^ ;\\]+", INTEROP.read_text(), re.MULTILINE)
    return str(found)


def install(root: Path) -> None:
    """Install the packages that a deploy adds to an app's requirements. They are for the same version of Python."""
    requirements = [*serving_requirements(realtime=True), *(f"{name}=={version(name)}" for name in LOADERS)]
    requirements += map(published, PUBLISHED)
    site = root / f"usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/dist-packages"
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", site, *requirements]
    subprocess.run(command, check=True, env={**os.environ, "UV_LINK_MODE": "copy"})
    wheels = root / WHEELS.relative_to("/")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
    subprocess.run([*command, published(PUBLISHED_PIN)], check=True)


def main() -> int:
    """Write the archive that the argument names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="the archive to write, for `podman import`")
    target: Path = parser.parse_args().target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="base-") as folder:
        root = Path(folder, "root")
        root.mkdir()
        for package in download(Path(folder, "packages")):
            subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
        settle(root)
        install(root)
        draft = Path(folder, "base.tar")
        # A controller may have filled the cache of packages, with files that only its user can read.
        options = ["--numeric-owner", "--mode=a+rX", "--directory", root]
        subprocess.run(["tar", "--create", "--file", draft, *options, "."], check=True)
        draft.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
