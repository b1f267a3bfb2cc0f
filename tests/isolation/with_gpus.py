"""Runs a module where /dev has files of GPUs: `python -m tests.isolation.with_gpus MODULE [ARGUMENT ...]`.

Root makes device files, which lead to /dev/zero; an ordinary user, who may make none, plain files. Both in a view of
this process's own.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import tempfile
from pathlib import Path

from fal_runner.isolation.confinement import set_dumpable
from fal_server.core.gpus import Gpu
from tests.support.controller import ROOT

NUMBER = os.makedev(1, 5)
"""The device that the files lead to."""
SLICES = ("nvidia-caps/nvidia-cap1", "nvidia-caps/nvidia-cap2", "nvidia-caps/nvidia-cap3", "nvidia-caps/nvidia-cap4")
SHARED = ("nvidia-uvm", "nvidiactl")
FILES = ("nvidia0", "nvidia1", "nvidia2", *SLICES, *SHARED)
WHOLE = tuple(
    Gpu(id=f"GPU-{number}", label="GPU-H100", model="H100", device=number, nodes=(f"nvidia{number}",))
    for number in (0, 1)
)
CUT = tuple(
    Gpu(
        id=f"MIG-{number}",
        label="GPU-H100-1G.10GB",
        model="H100 MIG 1g.10gb",
        device=2,
        nodes=("nvidia2", *SLICES[2 * number : 2 * number + 2]),
    )
    for number in (0, 1)
)
_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Change /dev, and become the module."""
    user, group = os.getuid(), os.getgid()
    set_dumpable(True)  # this process may have been root before, and its files in /proc would still be
    if _libc.unshare(_CLONE_NEWNS if user == 0 else _CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace of its own")
    if user != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    aside = Path(tempfile.mkdtemp(prefix="fal-devices-"))
    _mount("devices", aside, "tmpfs", 0)
    for entry in Path("/dev").iterdir():
        _show(entry, aside / entry.name)
    for name in FILES:
        _make(aside / name)
    _mount(aside, "/dev", None, _MS_BIND | _MS_REC)
    if _libc.umount2(str(aside).encode(), _MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), f"{aside} cannot be unmounted")
    aside.rmdir()
    os.chdir(ROOT)
    # A user's rights in the new namespace end with this program.
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])


def _show(entry: Path, target: Path) -> None:
    if entry.name.startswith("nvidia"):
        return  # this machine has GPUs, and the test's are others
    if entry.is_symlink():
        target.symlink_to(entry.readlink())
        return
    if entry.name == "ptmx":
        target.symlink_to("pts/ptmx")
        return
    if entry.is_dir():
        target.mkdir()
    else:
        target.touch()
    if entry.name == "pts":  # the kernel finds no terminals for a ptmx that is mounted from elsewhere
        _mount("devpts", target, "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    else:
        _mount(entry, target, None, _MS_BIND | _MS_REC)


def _make(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, NUMBER)
        path.chmod(0o666)
    except PermissionError:
        path.write_bytes(b"a GPU")


def _mount(source: Path | str, target: Path | str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = (None if text is None else str(text).encode() for text in (source, target, kind))
    data = None if options is None else options.encode()
    if _libc.mount(*encoded, flags, data) != 0:
        raise OSError(ctypes.get_errno(), f"{source} cannot be mounted on {target}")


if __name__ == "__main__":
    main()
