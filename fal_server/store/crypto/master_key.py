"""Finds the master key in the environment or a file. It creates one at the first start."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from fal_server.core.faults import Unavailable
from fal_server.store.crypto.vault import KEY_BYTES
from fal_server.store.files.durable import sync_directory, write_draft

FILE_NAME = "master.key"


def load_master_key(state_dir: Path, environ: Mapping[str, str]) -> bytes:
    """Return the master key, 32 bytes.

    It comes from FAL_MASTER_KEY (base64), else from the file that FAL_MASTER_KEY_FILE names, else from `master.key` in
    the state directory, which is created (mode 0600) if missing. Files contain base64 and must be readable only by
    their owner.

    Args:
        state_dir: an existing directory.
        environ: environment variables.

    Raises:
        Unavailable: both variables are set, the file cannot be read or others may read it, or it is not such a key.
    """
    text, named = environ.get("FAL_MASTER_KEY"), environ.get("FAL_MASTER_KEY_FILE")
    if text and named:
        raise Unavailable("FAL_MASTER_KEY and FAL_MASTER_KEY_FILE are both set: keep one of them")
    if text:
        return _decoded(text, "FAL_MASTER_KEY")
    if named:
        return _read(Path(named))
    path = state_dir / FILE_NAME
    try:
        return _read(path) if path.exists() else _create(path)
    except FileExistsError:
        return _read(path)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise Unavailable(f"the master key {path} can be read by others (mode {mode:04o}): chmod 600 {path}")
            return _decoded(file.read(1024), str(path))
    except OSError as error:
        raise Unavailable(f"the master key {path} cannot be read: {error.strerror}") from error


def _create(path: Path) -> bytes:
    """Create a key under another name, then link it. A crash then leaves no partial key, and none is replaced.

    Raises:
        FileExistsError: another process was faster.
    """
    key = os.urandom(KEY_BYTES)
    try:
        draft = write_draft(path.parent, base64.b64encode(key) + b"\n")
        try:
            path.hardlink_to(draft)
        finally:
            draft.unlink()
        sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise Unavailable(f"the master key {path} cannot be written: {error.strerror}") from error
    return key


def _decoded(text: str, source: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Unavailable(
            f"{source} is not a master key, which is {KEY_BYTES} random bytes as base64: put back the one that was "
            "there (what it has encrypted cannot be read with another), or make the first one with "
            f"openssl rand -base64 {KEY_BYTES}"
        )
    return key
