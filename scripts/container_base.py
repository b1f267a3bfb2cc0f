"""Make the root file system that the tests of containers use as their base image, since no registry may be reachable.

It is unpacked from packages of the Debian release that this machine runs: a shell, some tools and Python. What a deploy
adds to an app's requirements is installed too, so that builds need no network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from fal.deploy.serving import serving_requirements

# libstdc++6 belongs to compiled packages, such as grpcio.
PACKAGES = ["base-files", "base-passwd", "bash", "coreutils", "dash", "grep", "libstdc++6", "procps", "python3"]
LOADERS = ("cloudpickle", "grpcio", "pip")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def download(folder: Path) -> list[Path]:
    """Download the packages and all that they depend on, by the package lists that this machine has."""
    (folder / "partial").mkdir(parents=True)
    status = folder / "status"  # of a system on which nothing is installed
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
    """Do what the packages' scripts would do, as far as the tests need it."""
    shutil.copy(root / "usr/share/base-passwd/passwd.master", root / "etc/passwd")
    shutil.copy(root / "usr/share/base-passwd/group.master", root / "etc/group")
    for link, place in (("sh", "dash"), ("awk", "mawk")):
        if not (root / "bin" / link).is_symlink() and (root / "bin" / place).exists():
            (root / "bin" / link).symlink_to(place)
    for name in ("doc", "man", "locale", "info"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    authorities = root / AUTHORITIES.relative_to("/")
    authorities.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(AUTHORITIES, authorities)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")  # pip trusts its own list otherwise


def install(root: Path) -> None:
    """Install what a deploy adds to an app's requirements, for the same version of Python."""
    requirements = [*serving_requirements(realtime=True), *(f"{name}=={version(name)}" for name in LOADERS)]
    site = root / f"usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/dist-packages"
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", site, *requirements]
    subprocess.run(command, check=True, env={**os.environ, "UV_LINK_MODE": "copy"})


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
        subprocess.run(["tar", "--create", "--file", draft, "--numeric-owner", "--directory", root, "."], check=True)
        draft.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
