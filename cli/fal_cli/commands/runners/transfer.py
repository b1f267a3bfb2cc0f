"""Copies files and folders to and from a runner, as archives."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from queue import Queue
from threading import Thread
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from fal_cli.commands.runners.forwarding import PYTHON
from fal_cli.exit_codes import CommandError
from fal_cli.presentation.output import print_note, shown_bytes

if TYPE_CHECKING:
    from fal.api import SyncServerlessClient

_CHUNK = 256 * 1024

# Each script runs in the app's own Python, of any version, and prints the digest of the whole archive last.
_SEND = """
import hashlib, os, sys, tarfile
class Out:
    digest = hashlib.sha256()
    def write(self, data):
        self.digest.update(data)
        return sys.stdout.buffer.write(data)
path = os.path.abspath(sys.argv[1])
if not os.path.lexists(path):
    sys.exit("there is no " + sys.argv[1])
def plain(member):
    return member if member.isfile() or member.isdir() else None
out = Out()
with tarfile.open(fileobj=out, mode="w|") as archive:
    archive.add(path, arcname=os.path.basename(path) or "root", filter=plain)
sys.stdout.buffer.flush()
print(out.digest.hexdigest(), file=sys.stderr)
"""
_TAKE = """
import hashlib, os, sys, tarfile
class In:
    digest = hashlib.sha256()
    def read(self, size=-1):
        data = sys.stdin.buffer.read(size)
        self.digest.update(data)
        return data
path, source = sys.argv[1], In()
inside = os.path.isdir(path)
if not inside and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
    sys.exit("there is no folder " + os.path.dirname(os.path.abspath(path)))
with tarfile.open(fileobj=source, mode="r|") as archive:
    for member in archive:
        first, _, rest = member.name.partition("/")
        name = member.name if inside else rest
        target = os.path.join(path, name) if name else path
        if member.isdir():
            os.makedirs(target, exist_ok=True)
            continue
        with open(target, "wb") as file:
            source_file = archive.extractfile(member)
            while True:
                data = source_file.read(1 << 18)
                if not data:
                    break
                file.write(data)
        os.chmod(target, member.mode & 0o777)
while source.read(1 << 18):
    pass
print(source.digest.hexdigest())
"""


class Place(NamedTuple):
    """A path on a runner."""

    runner_id: str
    path: str


class _Archive:
    """The file object for an archive's writer. It has chunks for a stream, and their digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.pieces: Queue[bytes | BaseException | None] = Queue(16)

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.pieces.put(bytes(data))
        return len(data)

    def pack(self, source: Path) -> None:
        """Write a file or a folder, in a separate thread."""
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", self), mode="w|", bufsize=_CHUNK) as archive:
                archive.add(source, arcname=source.resolve().name, filter=self._plain)
        except BaseException as error:  # noqa: BLE001 - the reader of the pieces raises it
            self.pieces.put(error)
        else:
            self.pieces.put(None)

    def _plain(self, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (member.isfile() or member.isdir()):
            return None
        self.size += member.size
        return member

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self.pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def upload(client: SyncServerlessClient, source: Path, place: Place) -> None:
    """Copy a file or a folder to a runner."""
    if not source.exists():
        raise CommandError(f"there is no {source}")
    archive = _Archive()
    Thread(target=archive.pack, args=(source,), name="fal-cp", daemon=True).start()
    done = client.runners.exec(place.runner_id, [*PYTHON, _TAKE, place.path], stdin=archive)
    if done.exit_code:
        raise CommandError(_reason(done.stderr, place))
    if _last_line(done.stdout) != archive.digest.hexdigest():
        raise CommandError(f"what arrived at {place.path} is not what was sent: copy it again")
    print_note(f"Copied {source} to {place.runner_id}:{place.path} ({shown_bytes(archive.size)}).")


def download(client: SyncServerlessClient, place: Place, destination: Path) -> None:
    """Copy a file or a folder from a runner."""
    inside = destination.is_dir()
    parent = destination if inside else destination.absolute().parent
    if not parent.is_dir():
        raise CommandError(f"there is no folder {parent}")
    # Nothing replaces the destination before everything has arrived and the digest is right.
    with tempfile.TemporaryDirectory(prefix=".fal-cp-", dir=parent) as staging:
        arriving = _Arriving(Path(staging))
        stderr = bytearray()
        with client.runners.exec_stream(place.runner_id, [*PYTHON, _SEND, place.path]) as session:
            for output in session:
                if output.is_stderr:
                    stderr += output.data
                elif not arriving.take(output.data):
                    break
            arriving.finish()
            code = session.wait()
        if code:
            raise CommandError(_reason(bytes(stderr), place))
        if _last_line(bytes(stderr)) != arriving.digest.hexdigest():
            raise CommandError(f"what arrived of {place.path} is not what was sent: copy it again")
        found = sorted(Path(staging).iterdir())
        if len(found) != 1:
            raise CommandError(f"{place.path} is neither a file nor a folder")
        _put(found[0], destination / found[0].name if inside else destination)
    print_note(f"Copied {place.runner_id}:{place.path} to {destination} ({shown_bytes(arriving.size)}).")


class _Arriving:
    """Unpacks an archive that arrives in chunks, in a separate thread.

    Args:
        directory: where to unpack it.
    """

    def __init__(self, directory: Path) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._came = False
        self._failed: list[BaseException] = []
        reader, writer = os.pipe()
        self._pipe = os.fdopen(writer, "wb", buffering=0)
        self._thread = Thread(target=self._run, args=(reader, directory), name="fal-cp", daemon=True)
        self._thread.start()

    def take(self, data: bytes) -> bool:
        """Add a chunk; return False if unpacking has failed."""
        self.digest.update(data)
        self._came = True
        try:
            view = memoryview(data)
            while view:
                view = view[self._pipe.write(view) or 0 :]
        except BrokenPipeError:
            return False
        return True

    def finish(self) -> None:
        """Wait until everything is unpacked. Raise the error if it failed, unless nothing arrived."""
        self._pipe.close()
        self._thread.join()
        if self._failed and self._came:
            raise self._failed[0]

    def _run(self, reader: int, directory: Path) -> None:
        try:
            with os.fdopen(reader, "rb") as stream:
                self.size = unpack(stream, directory)
                while stream.read(_CHUNK):
                    pass
        except BaseException as error:  # noqa: BLE001 - `finish` raises it in the main thread
            self._failed.append(error)


def _put(found: Path, target: Path) -> None:
    """Move the copy to its destination. If that is an existing folder, move it into it."""
    if found.is_dir() and target.is_dir():
        shutil.copytree(found, target, dirs_exist_ok=True)
    elif found.is_dir() != target.is_dir() and target.exists():
        raise CommandError(f"{target} is there already, and not of the same kind")
    else:
        found.replace(target)


def unpack(stream: IO[bytes], directory: Path) -> int:
    """Unpack files and folders below a directory. Return the total size of the files.

    Raises:
        CommandError: a name leads out of the directory, since a runner's code is not trusted.
    """
    size = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not name.parts or "\\" in member.name:
                raise CommandError(f"the runner sent the name {member.name!r}, which leads out of the folder")
            target = directory.joinpath(*name.parts)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file, _CHUNK)
                target.chmod(member.mode & 0o777 | 0o200)
                size += member.size
    return size


def _reason(stderr: bytes, place: Place) -> str:
    said = _last_line(stderr) or "the command in the runner failed"
    return f"{place.runner_id}:{place.path}: {said}"


def _last_line(output: bytes) -> str:
    """Return the last line. Python may have printed others before it, such as warnings."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
