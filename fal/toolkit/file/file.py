"""Files for endpoints' inputs and outputs."""

from __future__ import annotations

import asyncio
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile

from pydantic import BaseModel, Field, model_validator

from fal.app.context import LIFECYCLE_HEADER, current_request, lifecycle_preference
from fal.toolkit.exceptions import FileUploadFallbackException
from fal.toolkit.file.providers.fal import FalFileRepository, FalFileRepositoryV3, InMemoryRepository
from fal.toolkit.file.providers.gcp import GoogleStorageRepository
from fal.toolkit.file.providers.local import LocalFileRepository
from fal.toolkit.file.providers.r2 import R2Repository
from fal.toolkit.file.types import FileData, FileRepository, RepositoryId, Reservation
from fal.toolkit.file.uploading import HasHeaders, uses_socket
from fal.toolkit.pydantic import IS_PYDANTIC_V2, FileField
from fal.toolkit.utils.download_utils import DownloadError, download_file, read_url

__all__ = [
    "BUILT_IN_REPOSITORIES",
    "DEFAULT_REPOSITORY",
    "FALLBACK_REPOSITORY",
    "IS_PYDANTIC_V2",
    "OBJECT_LIFECYCLE_PREFERENCE_KEY",
    "CompressedFile",
    "File",
    "FileField",
    "FileRepositoryFactory",
    "PendingFile",
    "Repositories",
    "get_builtin_repository",
    "request_lifecycle_preference",
]

T = TypeVar("T")
FileRepositoryFactory = Callable[[], FileRepository]
Repositories = FileRepository | RepositoryId | Sequence[FileRepository | RepositoryId] | None
SaveOptions = Mapping[str, object]
BUILT_IN_REPOSITORIES: dict[str, FileRepositoryFactory] = {
    "fal": lambda: FalFileRepository(),
    "fal_v3": lambda: LocalFileRepository() if uses_socket() else FalFileRepositoryV3(),
    "in_memory": lambda: InMemoryRepository(),
    "gcp_storage": lambda: GoogleStorageRepository(),
    "r2": lambda: R2Repository(),
}
# Older names of the platform's storage.
_SAME = {"fal_v2": "fal_v3", "cdn": "fal_v3"}
DEFAULT_REPOSITORY: FileRepository | RepositoryId = "fal_v3"
FALLBACK_REPOSITORY: list[FileRepository | RepositoryId] = ["fal"]
OBJECT_LIFECYCLE_PREFERENCE_KEY = LIFECYCLE_HEADER
_ANY = "application/octet-stream"


def get_builtin_repository(id: FileRepository | RepositoryId) -> FileRepository:  # noqa: A002 - the published name
    """Return the repository of a name; a repository is returned unchanged.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(id, FileRepository):
        return id
    make = BUILT_IN_REPOSITORIES.get(_SAME.get(id, id))
    if make is None:
        known = ", ".join(sorted({*BUILT_IN_REPOSITORIES, *_SAME}))
        raise ValueError(f"there is no repository {id!r}: use one of {known}, or an object of a FileRepository")
    return make()


def request_lifecycle_preference(request: HasHeaders) -> dict[str, str] | None:
    """Return how long to keep a request's files, as its caller asked. None if the caller did not ask."""
    return lifecycle_preference(request.headers.get(LIFECYCLE_HEADER))


def _preference(request: HasHeaders | None) -> dict[str, str] | None:
    asking = current_request() if request is None else request
    return None if asking is None else request_lifecycle_preference(asking)


class File(BaseModel):
    """A file at an address. As input, the address alone suffices; it may be a data: URL."""

    url: str = Field(description="The URL where the file can be downloaded from.")
    content_type: str | None = Field(default=None, description="The mime type of the file.", examples=["image/png"])
    file_name: str | None = Field(default=None, description="The name of the file.", examples=["output.png"])
    file_size: int | None = Field(default=None, description="The size of the file in bytes.", examples=[4404019])
    file_data: bytes | None = Field(default=None, description="The content.", exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _from_address(cls, value: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        if not isinstance(value, str):
            return value
        if urlsplit(value).scheme not in ("http", "https", "data"):
            raise ValueError("value must be a URL that begins with http:, https: or data:")
        return {"url": value}

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        content_type: str | None = None,
        file_name: str | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        fallback_repository: Repositories = FALLBACK_REPOSITORY,
        request: HasHeaders | None = None,
        save_kwargs: SaveOptions | None = None,
        fallback_save_kwargs: SaveOptions | None = None,
    ) -> Self:
        """Store bytes.

        Args:
            data: the content.
            content_type: None guesses it from the name.
            file_name: None generates one.
            repository: "fal_v3" stores it on the platform; "in_memory" puts the content into a data: URL; others are
                "gcp_storage", "r2" or a `FileRepository`.
            fallback_repository: one or several repositories to try in order if the first fails.
            request: the request that asked for the file; None takes the current one.
            save_kwargs: more arguments for the repository's `save`.
            fallback_save_kwargs: the same for the fallbacks.

        Raises:
            FileUploadException: it could not be stored.
        """
        file = FileData(data, content_type, file_name)
        saver = _Saver(repository, fallback_repository, request, save_kwargs, fallback_save_kwargs)
        url = saver.first(lambda store, options: store.save(file, **options), {})  # type: ignore[arg-type]
        return cls(
            url=url, content_type=file.content_type, file_name=file.file_name, file_size=len(data), file_data=data
        )

    @classmethod
    async def from_bytes_async(
        cls,
        data: bytes,
        content_type: str | None = None,
        file_name: str | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        fallback_repository: Repositories = FALLBACK_REPOSITORY,
        request: HasHeaders | None = None,
        save_kwargs: SaveOptions | None = None,
        fallback_save_kwargs: SaveOptions | None = None,
    ) -> Self:
        """Run `from_bytes` in a thread. Subclasses may name its second argument differently."""
        return await asyncio.to_thread(
            cls.from_bytes,
            data,
            content_type,
            file_name=file_name,
            repository=repository,
            fallback_repository=fallback_repository,
            request=request,
            save_kwargs=save_kwargs,
            fallback_save_kwargs=fallback_save_kwargs,
        )

    @classmethod
    def from_path(
        cls,
        path: str | Path,
        content_type: str | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        multipart: bool | None = None,
        fallback_repository: Repositories = FALLBACK_REPOSITORY,
        request: HasHeaders | None = None,
        save_kwargs: SaveOptions | None = None,
        fallback_save_kwargs: SaveOptions | None = None,
    ) -> Self:
        """Store a file; a large one is read in chunks.

        Args:
            path: the file.
            content_type: None guesses it from the name.
            multipart: whether to read it in chunks; None decides by its size.
            repository, fallback_repository, request, save_kwargs, fallback_save_kwargs: as in `from_bytes`.

        Raises:
            FileNotFoundError: there is no such file.
            FileUploadException: it could not be stored.
        """
        file = Path(path)
        size = file.stat().st_size
        kind = content_type or guess_type(file.name)[0] or _ANY
        saver = _Saver(repository, fallback_repository, request, save_kwargs, fallback_save_kwargs)
        url, data = saver.first(
            lambda store, options: store.save_file(file, **options),  # type: ignore[arg-type]
            {"multipart": multipart, "content_type": kind},
        )
        return cls(
            url=url,
            content_type=kind,
            file_name=file.name,
            file_size=size,
            file_data=None if data is None else data.data,
        )

    @classmethod
    async def from_path_async(
        cls,
        path: str | Path,
        content_type: str | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        multipart: bool | None = None,
        fallback_repository: Repositories = FALLBACK_REPOSITORY,
        request: HasHeaders | None = None,
        save_kwargs: SaveOptions | None = None,
        fallback_save_kwargs: SaveOptions | None = None,
    ) -> Self:
        """Run `from_path` in a thread."""
        return await asyncio.to_thread(
            cls.from_path,
            path,
            content_type,
            repository,
            multipart,
            fallback_repository,
            request,
            save_kwargs,
            fallback_save_kwargs,
        )

    @classmethod
    def reserve(
        cls,
        content_type: str | None = None,
        file_name: str | None = None,
        request: HasHeaders | None = None,
        repository: FileRepository | RepositoryId = DEFAULT_REPOSITORY,
        extra_headers: Mapping[str, str] | None = None,
    ) -> PendingFile:
        """Reserve an address for later content. A caller can have it at once.

        Args:
            content_type, file_name, request, repository: as in `from_bytes`.
            extra_headers: more headers for the platform.

        Raises:
            FileUploadException: the platform refused.
            NotImplementedError: the repository does not support it.
        """
        about = FileData(b"", content_type, file_name)
        kept = _preference(request)
        reserved = get_builtin_repository(repository).reserve(
            about.file_name, about.content_type, kept, request, extra_headers=extra_headers
        )
        return PendingFile(about.content_type, about.file_name, reserved)

    def as_bytes(self) -> bytes:
        """Return the content, downloading it if this process does not have it.

        Raises:
            DownloadError: it could not be downloaded.
        """
        return read_url(self.url) if self.file_data is None else self.file_data

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Download to a path, creating its directory if it is missing.

        Raises:
            FileExistsError: the file exists, and `overwrite` is not set.
            DownloadError: it could not be downloaded.
        """
        target = Path(path).resolve()
        if target.exists() and not overwrite:
            raise FileExistsError(f"File {target} already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".save-") as directory:
            download_file(self.url, directory).replace(target)
        return target

    async def save_async(self, path: str | Path, overwrite: bool = False) -> Path:
        """Run `save` in a thread."""
        return await asyncio.to_thread(self.save, path, overwrite)


@dataclass(frozen=True, slots=True)
class _Saver:
    """Stores a file in the first repository that accepts it."""

    repository: FileRepository | RepositoryId
    fallback: Repositories
    request: HasHeaders | None
    options: SaveOptions | None
    fallback_options: SaveOptions | None

    def first(self, save: Callable[[FileRepository, SaveOptions], T], defaults: SaveOptions) -> T:
        """Return the result of the first repository that does not fail.

        Raises:
            Exception: the only repository raised it.
            FileUploadFallbackException: every repository failed.
        """
        common = {"object_lifecycle_preference": _preference(self.request), **defaults}
        attempts: list[tuple[FileRepository | RepositoryId, SaveOptions]] = [
            (self.repository, {**common, **(self.options or {})}),
            *((store, {**common, **(self.fallback_options or {})}) for store in self._fallbacks()),
        ]
        failures: list[str] = []
        for store, options in attempts:
            found = get_builtin_repository(store)
            try:
                return save(found, options)
            except Exception as error:
                if len(attempts) == 1:
                    raise
                # Not the repository itself: its repr may contain its keys.
                name = store if isinstance(store, str) else type(store).__name__
                failures.append(f"{name}: {error}")
                if len(failures) == len(attempts):
                    raise FileUploadFallbackException("; ".join(failures)) from error
                print(f"fal: {failures[-1]}; trying the next repository", file=sys.stderr, flush=True)  # noqa: T201
        raise AssertionError("there is always one attempt")

    def _fallbacks(self) -> Sequence[FileRepository | RepositoryId]:
        if self.fallback is None:
            return ()
        if isinstance(self.fallback, FileRepository):
            return [self.fallback]
        return [self.fallback] if isinstance(self.fallback, str) else self.fallback


@dataclass
class PendingFile:
    """A file whose address is known before its content; see `File.reserve`."""

    content_type: str
    file_name: str
    _reservation: Reservation = field(repr=False)

    @property
    def url(self) -> str:
        """The address that the file will have."""
        return self._reservation.url

    def complete(self, content: bytes | str | Path) -> File:
        """Store the content, which may be the path of a file.

        Raises:
            FileUploadException: it could not be stored; the address then stays empty.
        """
        given = content if isinstance(content, bytes) else Path(content)
        self._reservation.complete(given)
        return File(
            url=self.url,
            content_type=self.content_type,
            file_name=self.file_name,
            file_size=len(given) if isinstance(given, bytes) else given.stat().st_size,
            file_data=given if isinstance(given, bytes) else None,
        )

    def abort(self) -> None:
        """Release the address without storing content."""
        self._reservation.abort()


class CompressedFile(File):
    """A ZIP archive, unpacked at first use. Its unpacked files are deleted with this object."""

    extract_dir: str | None = Field(default=None, exclude=True, repr=False)

    def __iter__(self) -> Iterator[Path]:  # type: ignore[override]  # the published meaning: not pydantic's fields
        """Iterate over the files and directories at the top of the archive."""
        return iter(sorted(self._directory().iterdir()))

    def glob(self, pattern: str) -> Iterator[Path]:
        """Return the files that match a pattern, such as "*.png" or "**/*.txt".

        Raises:
            DownloadError: it could not be downloaded, or is not a ZIP archive.
        """
        return self._directory().glob(pattern)

    def _directory(self) -> Path:
        if self.extract_dir is None:
            directory = Path(mkdtemp(prefix="fal-archive-"))
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
            with TemporaryDirectory(prefix="fal-archive-") as place:
                archive = self.save(Path(place) / "archive.zip")
                try:
                    with ZipFile(archive) as opened:
                        opened.extractall(directory)
                except BadZipFile as error:
                    raise DownloadError(f"{self.url[:200]} is not a ZIP archive: {error}") from error
            self.extract_dir = str(directory)
        return Path(self.extract_dir)
