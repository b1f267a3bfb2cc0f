"""The directory that runners see as /data. It is opened name by name, so that no link or race leads out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zipfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from fal_runner.process.disk import files_below
from fal_runner.process.foreign_files import directory_of, open_regular
from fal_runner.process.removal import remove_entry
from fal_server.core.data_paths import DRAFTS, ROOT, data_parts, data_path
from fal_server.core.faults import AlreadyExists, Fault, InvalidArgument, NotFound, Unavailable
from fal_server.ports.files import DataEntry, OpenFile
from fal_server.store.files.durable import make_directory
from fal_server.store.files.uploads import StagingDirectory

_MOST_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_ARCHIVE_FILES = 100_000


class DataDirectory:
    """Implements the port DataStore.

    It follows links like runners, including those to `/data/...`, if they stay below /data.

    Args:
        directory: created (mode 0700) if missing.

    Raises:
        Unavailable: it cannot be created or read.
    """

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self.directory = directory
        self.drafts = StagingDirectory(directory / DRAFTS)

    def entries(self, parts: Sequence[str]) -> list[DataEntry]:
        """Return a directory's entries, or a file itself. Published clients rely on the latter."""
        found: list[DataEntry] = []
        with _errors(parts):
            status = self._status(parts)
        if not stat.S_ISDIR(status.st_mode):
            return [_entry(data_path(*parts), status)]
        with _errors(parts), self._held(parts) as descriptor:
            for name in sorted(os.listdir(descriptor)):  # noqa: PTH208 - a descriptor
                if not parts and name == DRAFTS:
                    continue
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if stat.S_ISLNK(status.st_mode):
                        status = self._status([*parts, name])
                except (FileNotFoundError, NotFound, InvalidArgument):
                    continue  # removed meanwhile, or a link to nothing or to the outside
                found.append(_entry(data_path(*parts, name), status))
        return found

    def open(self, parts: Sequence[str]) -> OpenFile:
        with _errors(parts):
            parent, name = self._find(parts, follow_last=True)
            try:
                if not name:
                    raise InvalidArgument("path", f"{data_path(*parts)} is a directory: name a file in it")
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=parent)
            finally:
                os.close(parent)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise InvalidArgument("path", f"{data_path(*parts)} is no file")
            return OpenFile(descriptor=descriptor, name=parts[-1])

    def place(self, draft: Path, parts: Sequence[str]) -> None:
        if not parts:
            raise InvalidArgument("path", "/data is a directory: name a file in it")
        with _errors(parts):
            parent, name = self._find(parts, create=True)
            try:
                with directory_of(draft) as drafts:
                    with open_regular(draft.name, drafts) as file:
                        os.fchmod(file.fileno(), 0o644)
                    os.rename(draft.name, name, src_dir_fd=drafts, dst_dir_fd=parent)
                os.fsync(parent)
            finally:
                os.close(parent)

    def used(self) -> int:
        found = files_below(self.directory, without=(DRAFTS,))
        return sum(status.st_size for status in found if not stat.S_ISDIR(status.st_mode))

    def extract(self, archive: Path, parts: Sequence[str], most_bytes: int | None = None) -> bool:
        try:
            with (
                directory_of(archive) as drafts,
                open_regular(archive.name, drafts) as file,
                zipfile.ZipFile(file) as opened,
            ):
                members = [item for item in opened.infolist() if not item.is_dir()]
                if len(members) > _MOST_ARCHIVE_FILES:
                    raise InvalidArgument("file_upload", f"the archive has more than {_MOST_ARCHIVE_FILES} files")
                # A member is never unpacked beyond its declared size.
                if most_bytes is not None and sum(item.file_size for item in members) > most_bytes:
                    return False
                # All names are checked before the first file is written.
                places = [data_parts(data_path(*parts, *item.filename.split("/"))) for item in members]
                for item, place in zip(members, places, strict=True):
                    draft = self.drafts.open()
                    try:
                        with opened.open(item) as source:
                            draft.fill(source)
                        self.place(draft.path, place)
                    finally:
                        draft.discard()
                with _errors(parts), self._held(parts, create=True):
                    pass
                return True
        except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
            raise InvalidArgument("file_upload", f"the archive cannot be read: {error}") from error
        except OSError as error:
            raise Unavailable(f"the archive cannot be unpacked: {error.strerror}") from error

    def rename(self, parts: Sequence[str], destination: Sequence[str]) -> None:
        if not parts or not destination:
            raise InvalidArgument("path", "/data itself cannot be moved or replaced: name something in it")
        with _errors(parts):
            source, name = self._find(parts)
            try:
                os.stat(name, dir_fd=source, follow_symlinks=False)
                target, new_name = self._find(destination, create=True)
                try:
                    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
                    os.fsync(target)
                finally:
                    os.close(target)
            finally:
                os.close(source)

    def delete(self, parts: Sequence[str]) -> None:
        if not parts:
            raise InvalidArgument("path", "/data itself cannot be deleted: name something in it")
        with _errors(parts):
            parent, name = self._find(parts)
            try:
                os.stat(name, dir_fd=parent, follow_symlinks=False)
                remove_entry(name, parent)
            finally:
                os.close(parent)

    def _status(self, parts: Sequence[str]) -> os.stat_result:
        parent, name = self._find(parts, follow_last=True)
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False) if name else os.fstat(parent)
        finally:
            os.close(parent)

    @contextmanager
    def _held(self, parts: Sequence[str], *, create: bool = False) -> Generator[int]:
        """Open a directory for the duration of a block."""
        descriptor, _ = self._find([*parts, "."], create=create, follow_last=True)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _find(self, parts: Sequence[str], *, create: bool = False, follow_last: bool = False) -> tuple[int, str]:
        """Return the open parent directory and the last name. The name is "" for the directory itself."""
        with _Walk(self.directory, parts) as walk:
            while walk.pending:
                name = walk.pending.pop()
                if name in ("", "."):
                    continue
                if name == "..":
                    walk.leave()
                elif (walk.pending or follow_last) and (target := _link(walk.here, name)) is not None:
                    walk.follow(target)
                elif not walk.pending:
                    return walk.take(), name
                else:
                    walk.stack.append(_enter(walk.here, name, create=create))
            return walk.take(), ""


class _Walk:
    """A walk from /data to a name. It keeps every directory on the way open.

    Attributes:
        stack: /data and the directories below it.
        pending: the remaining names, the next one last.
    """

    def __init__(self, directory: Path, parts: Sequence[str]) -> None:
        self._parts = parts
        self._links = 0
        self.stack = [os.open(directory, _DIRECTORY)]
        self.pending = list(reversed(parts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.stack:
            os.close(descriptor)

    @property
    def here(self) -> int:
        """The directory reached so far."""
        return self.stack[-1]

    def take(self) -> int:
        """Return the directory reached so far, which the caller closes."""
        return self.stack.pop()

    def leave(self) -> None:
        """Go to the parent directory."""
        if len(self.stack) == 1:
            raise _outside(self._parts)
        os.close(self.stack.pop())

    def follow(self, target: str) -> None:
        """Follow a link."""
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        names = target.split("/")
        if target.startswith("/"):
            if names[1] != ROOT:
                raise _outside(self._parts)
            while len(self.stack) > 1:
                os.close(self.stack.pop())
            names = names[2:]
        self.pending.extend(reversed(names))


def _entry(path: str, status: os.stat_result) -> DataEntry:
    return DataEntry(
        path=path,
        size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        is_file=not stat.S_ISDIR(status.st_mode),
        updated_at=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _link(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _enter(directory: int, name: str, *, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _outside(parts: Sequence[str]) -> InvalidArgument:
    return InvalidArgument("path", f"{data_path(*parts)[:200]} leads out of /data by a link: remove the link")


@contextmanager
def _errors(parts: Sequence[str]) -> Generator[None]:
    """Turn errors of the operating system into faults."""
    shown = data_path(*parts)[:200]
    try:
        yield
    except Fault:
        raise
    except FileNotFoundError:
        raise NotFound(shown, "`fal files list` shows what there is") from None
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise AlreadyExists(f"there is a directory at the destination of {shown}: remove it first") from error
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENAMETOOLONG):
            raise InvalidArgument("path", f"{shown} cannot be used so: {error.strerror}") from error
        raise Unavailable(f"{shown} cannot be used: {error.strerror}") from error
