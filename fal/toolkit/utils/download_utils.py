"""Downloads files, model weights and repositories into /data, which all runners share."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from fal.toolkit.http import open_url

FAL_PERSISTENT_DIR = Path(os.environ.get("FAL_DATA_DIR") or "/data")
FAL_REPOSITORY_DIR = FAL_PERSISTENT_DIR / ".fal" / "repos"
FAL_MODEL_WEIGHTS_DIR = FAL_PERSISTENT_DIR / ".fal" / "model_weights"
_CHUNK_BYTES = 1024 * 1024
_SECONDS = 60.0
_USER_AGENT = "Mozilla/5.0 (compatible; fal-toolkit)"
_HASH = re.compile(r"[0-9a-fA-F]{7,64}")


class DownloadError(Exception):
    """A download failed; the message says which and why."""


def download_file(
    url: str,
    target_dir: str | Path,
    *,
    force: bool = False,
    request_headers: Mapping[str, str] | None = None,
    filesize_limit: int | None = None,
) -> Path:
    """Download a file into a directory. It is skipped if already there with the server's size.

    The file appears under its name only when it is complete.

    Args:
        url: http, https or data.
        target_dir: created if it is missing; a relative path is below /data.
        force: download it even if it is there.
        request_headers: headers of the request.
        filesize_limit: in MiB; a larger file is refused.

    Returns:
        The file.

    Raises:
        DownloadError: it could not be downloaded, or is too large.
    """
    directory = FAL_PERSISTENT_DIR / target_dir
    limit = None if filesize_limit is None else filesize_limit * 1024 * 1024
    shown = url.partition("?")[0][:200]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _opened(url, request_headers) as (name, size, source):
            target = directory / name
            if limit is not None and size is not None and size > limit:
                raise DownloadError(f"{shown} has {size} bytes, more than the {limit} that are allowed")
            if not force and size is not None and target.is_file() and target.stat().st_size == size:
                return target
            _keep(source, target, size, limit, shown)
            return target
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{shown} could not be downloaded: {error}") from error


def download_model_weights(url: str, force: bool = False, request_headers: Mapping[str, str] | None = None) -> Path:
    """Download model weights once for all runners of the account.

    Args:
        url: the file's address.
        force: download it even if it is there.
        request_headers: to send along.

    Returns:
        The file, in its own directory below /data/.fal/model_weights.

    Raises:
        DownloadError: it could not be downloaded.
    """
    directory = FAL_MODEL_WEIGHTS_DIR / hashlib.sha256(url.encode()).hexdigest()
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        known = [path for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")]
        if len(known) == 1 and not force:
            return known[0]
        return download_file(url, directory, force=force, request_headers=request_headers)


def clone_repository(
    https_url: str,
    *,
    commit_hash: str | None = None,
    target_dir: str | Path | None = None,
    repo_name: str | None = None,
    force: bool = False,
    include_to_path: bool = False,
) -> Path:
    """Clone a git repository once for all runners of the account.

    Args:
        https_url: the repository's address.
        commit_hash: the commit to check out; None takes the newest of the default branch at the first clone.
        target_dir: the directory to keep it in; None means /data/.fal/repos.
        repo_name: the name of its directory; None takes the address's last part.
        force: clone it again even if it is there.
        include_to_path: add it to sys.path.

    Returns:
        The directory.

    Raises:
        DownloadError: git is missing or failed; the message has its output.
    """
    if not https_url.startswith("https://"):
        raise DownloadError(f"{https_url[:200]} does not begin with https://")
    if commit_hash is not None and _HASH.fullmatch(commit_hash) is None:
        raise DownloadError(f"{commit_hash[:80]} is not the hash of a commit")
    parent = FAL_REPOSITORY_DIR if target_dir is None else FAL_PERSISTENT_DIR / target_dir
    name = repo_name or Path(urlsplit(https_url).path).name.removesuffix(".git")
    target = parent / name
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent):
        there = (target / ".git").is_dir()
        if there and commit_hash is not None and not _git("rev-parse", "HEAD", at=target).startswith(commit_hash):
            there = False
        if not there or force:
            with tempfile.TemporaryDirectory(dir=parent, prefix=".clone-") as temporary:
                fresh = Path(temporary) / "clone"
                _git("clone", "--quiet", "--recursive", https_url, str(fresh), at=parent)
                if commit_hash is not None:
                    _git("checkout", "--quiet", commit_hash, at=fresh)
                    _git("submodule", "--quiet", "update", "--init", "--recursive", at=fresh)
                if target.exists():
                    shutil.rmtree(target)
                fresh.rename(target)
    if include_to_path and str(target) not in sys.path:
        sys.path.insert(0, str(target))
    return target


def read_url(url: str, *, most_bytes: int | None = None) -> bytes:
    """Return the content at an address.

    Raises:
        DownloadError: it could not be downloaded, or is larger than `most_bytes`.
    """
    shown = url.partition("?")[0][:200]
    try:
        with _opened(url, None) as (_, size, source):
            content = source.read(-1 if most_bytes is None else most_bytes + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{shown} could not be downloaded: {error}") from error
    if most_bytes is not None and len(content) > most_bytes:
        raise DownloadError(f"{shown} has more than the {most_bytes} bytes that are allowed")
    if size is not None and len(content) != size:
        raise DownloadError(f"{shown} was cut off: {len(content)} of {size} bytes came")
    return content


@contextmanager
def _opened(url: str, headers: Mapping[str, str] | None) -> Generator[tuple[str, int | None, IO[bytes]]]:
    """Open an address. Yield its name, its size if known, and its content."""
    scheme = urlsplit(url).scheme
    if scheme == "data":
        with tempfile.SpooledTemporaryFile(max_size=_CHUNK_BYTES) as file:
            content = _data(url)
            file.write(content)
            file.seek(0)
            yield hashlib.sha256(content).hexdigest(), len(content), cast("IO[bytes]", file)
        return
    if scheme not in ("http", "https"):
        raise DownloadError(f"{url[:200]} is no address: begin with http://, https:// or data:")
    with open_url(url, {"User-Agent": _USER_AGENT, **(headers or {})}, timeout_seconds=_SECONDS) as answer:
        size = answer.headers.get("content-length")
        known = None if size is None or answer.headers.get("content-encoding") else int(size)
        yield _name(url, answer.headers), known, answer


def _data(url: str) -> bytes:
    head, comma, content = url.partition(",")
    if not comma:
        raise DownloadError("the data: address has no content")
    if not head.endswith(";base64"):
        return unquote_to_bytes(content)
    try:
        return base64.b64decode(unquote(content), validate=True)
    except binascii.Error as error:
        raise DownloadError(f"the data: address is not base64: {error}") from error


def _name(url: str, headers: Message) -> str:
    """Return the server's name for the file, or the address's. It never leaves the directory."""
    given = headers.get_filename() or unquote(Path(urlsplit(url).path).name)
    name = Path(given.replace("\0", "")).name
    return hashlib.sha256(url.encode()).hexdigest() if name in ("", ".", "..") else name


def _keep(source: IO[bytes], target: Path, size: int | None, limit: int | None, shown: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".download-")
    try:
        count = 0
        with os.fdopen(handle, "wb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                count += len(chunk)
                if limit is not None and count > limit:
                    raise DownloadError(f"{shown} has more than the {limit} bytes that are allowed")
                file.write(chunk)
        if size is not None and count != size:
            raise DownloadError(f"{shown} was cut off: {count} of {size} bytes came")
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Hold a lock against the same work in this machine's other runners."""
    import fcntl  # imported here, because code for runners, which run Linux, must be importable anywhere

    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _git(*arguments: str, at: Path) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DownloadError("git is not installed where this runs") from None
    if done.returncode != 0:
        raise DownloadError(f"git {arguments[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()
