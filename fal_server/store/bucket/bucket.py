"""The bucket: its calls, and what is wrong when one fails."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from fal_server.core.faults import NotFound, Unavailable

_ABOUT = "fal"
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_REGION = re.compile(r"<Region>([\w-]{1,60})</Region>")
_REFUSALS = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_REDIRECTED = "redirect without LOCATION"  # the library's words, if the answer has no code
# Where a machine of AWS would have credentials, if none are in the environment.
_OF_THE_MACHINE = ("169.254.169.254", "169.254.170.2")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
_VARIABLES = (
    *(*_ENDPOINTS, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_REGION", "AWS_DEFAULT_REGION"),
)
_CONNECT_SECONDS = 5
_CHECK_SECONDS = 5.0
_RETRIES = 3
_CHUNK_BYTES = 4 * 1024 * 1024


class Refused(Unavailable):
    """The bucket is missing or refuses the credentials. Repetition does not change that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An object of a listing. `name` is the last part of its key."""

    key: str
    name: str
    changed_at: datetime


class Bucket:
    """Bytes by their keys below one prefix. Blocking.

    Credentials, region and endpoint are in the environment, by the names that AWS has for them.

    Args:
        url: `s3://bucket/prefix`.
        silent_seconds: how long a call waits for the next byte of an answer.

    Raises:
        Refused: a variable of AWS is wrong.
    """

    def __init__(self, url: str, *, silent_seconds: float = 20) -> None:
        self.url = url
        self._check_variables()
        self._store = self._opened(retries=_RETRIES, silent_seconds=silent_seconds)
        # Somebody waits for a check. It says no more than whether there is an answer.
        self._once = self._opened(retries=0, silent_seconds=min(silent_seconds, _CHECK_SECONDS))

    def check(self) -> Unavailable | None:
        """Return why the bucket cannot be used now; None if it can."""
        try:
            for _ in obstore.list(self._once, "check"):
                break
        except (BaseError, OSError) as error:
            return self._trouble(error)
        return None

    def put(self, key: str, source: bytes | Path, about: Mapping[str, str | int | None] | None = None) -> None:
        """Store bytes, whole or not at all, in place of earlier ones.

        Args:
            about: is returned by `about`.

        Raises:
            Unavailable: the bucket does not take them.
        """
        attributes = None if about is None else {_ABOUT: base64.urlsafe_b64encode(json.dumps(about).encode()).decode()}
        try:
            obstore.put(self._store, key, source, attributes=attributes)
        except (BaseError, OSError) as error:
            raise self._trouble(error) from error

    def has(self, key: str) -> bool:
        """Return whether there is such an object.

        Raises:
            Unavailable: the bucket does not answer.
        """
        return self.changed_at(key) is not None

    def changed_at(self, key: str) -> datetime | None:
        """Return when an object was put last; None if there is none.

        Raises:
            Unavailable: the bucket does not answer.
        """
        try:
            return obstore.head(self._store, key)["last_modified"]
        except (BaseError, OSError) as error:
            if self._is_missing(error):
                return None
            raise self._trouble(error) from error

    def about(self, key: str) -> dict[str, str | int | None]:
        """Return what was put about an object.

        Raises:
            NotFound: there is none.
            Unavailable: the bucket does not answer.
        """
        try:
            return _about(obstore.get(self._store, key, options={"head": True}))
        except (BaseError, OSError) as error:
            # An answer without a body does not say whether it is the bucket that is missing.
            trouble = self.check() if self._is_missing(error) else None
            raise trouble or self._fault(error) from error

    def read(self, key: str, target: IO[bytes]) -> dict[str, str | int | None]:
        """Write an object's bytes to a file. Return what was put about it.

        Raises:
            NotFound: there is none.
            Unavailable: the bucket does not answer, or not to the end.
            OSError: the file does not take them.
        """
        try:
            found = obstore.get(self._store, key)
            chunks = iter(found.stream(min_chunk_size=_CHUNK_BYTES))
        except (BaseError, OSError) as error:
            raise self._fault(error) from error
        while True:
            try:
                chunk = next(chunks, None)
            except (BaseError, OSError) as error:
                raise self._fault(error) from error
            if chunk is None:
                return _about(found)
            target.write(chunk)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield all objects whose keys start with a prefix and `/`.

        Raises:
            Unavailable: the bucket does not answer.
        """
        try:
            for some in obstore.list(self._store, prefix):
                for each in some:
                    key = each["path"]
                    yield Entry(key=key, name=key.rpartition("/")[2], changed_at=each["last_modified"])
        except (BaseError, OSError) as error:
            raise self._trouble(error) from error

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is missing is no error.

        Raises:
            Unavailable: the bucket does not answer.
        """
        for key in keys:
            try:
                obstore.delete(self._store, key)
            except (BaseError, OSError) as error:
                if not self._is_missing(error):
                    raise self._trouble(error) from error

    def _check_variables(self) -> None:
        """Refuse what the library panics at, or misreads."""
        for name in _VARIABLES:
            value = os.environ.get(name)
            if value is None:
                continue
            if not value:
                wrong = "is empty: set it, or unset it"
            elif any(not "!" <= letter <= "~" for letter in value):
                wrong = "has a space, or another character that it cannot have: correct it"
            elif name in _ENDPOINTS and not _is_endpoint(value):
                wrong = "is no URL without credentials: set it to one such as https://s3.example"
            else:
                continue
            raise Refused(f"the content in {self.url} cannot be used; {name} {wrong}")

    def _opened(self, *, retries: int, silent_seconds: float) -> S3Store:
        try:
            return S3Store.from_url(
                self.url,
                client_options={
                    "allow_http": True,
                    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                    "read_timeout": timedelta(seconds=silent_seconds),
                    "timeout": timedelta(hours=6),  # of a whole file
                },
                retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=30)},
            )
        except BaseError as error:
            why = str(error).partition("\n\nDebug source")[0].rpartition("error: ")[2][:200]
            raise Refused(
                f"the content in {self.url} cannot be used; a variable AWS_... is wrong ({why}): correct or unset it"
            ) from error

    def _fault(self, error: Exception) -> NotFound | Unavailable:
        return NotFound("content", "upload it, then try again") if self._is_missing(error) else self._trouble(error)

    def _is_missing(self, error: Exception) -> bool:
        return isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)

    def _trouble(self, error: Exception) -> Unavailable:
        """Say what is wrong, and what to do. S3's text repeats what was signed, so its code alone is shown."""
        text = str(error).partition("\n\nDebug source")[0]
        found = _CODE.search(text)
        code = found[1] if found else ""
        kind: type[Unavailable] = Refused
        if code == "NoSuchBucket":
            why = "there is no such bucket: create it, or name another with --content"
        elif code in _REFUSALS or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            why = (
                f"it refuses the credentials ({code or 'AccessDenied'}): set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY to those of a user who may list, read, write and delete there"
            )
        elif code in _ELSEWHERE or _REDIRECTED in text:
            region = _REGION.search(text)
            why = (
                f"it is in another region than AWS_REGION ({os.environ.get('AWS_REGION') or 'us-east-1'}): set that to "
                f"{region[1] if region else 'the region of the bucket'}, then start again"
            )
        elif any(address in text for address in _OF_THE_MACHINE):
            why = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, then start again"
        else:
            kind = Unavailable
            cause = f"answers {code}" if code else f"does not answer ({_cause(text)})"
            why = f"it {cause}: try again; if that goes on, see AWS_ENDPOINT_URL and the network"
        return kind(f"the content in {self.url} cannot be used; {why}")


def _cause(text: str) -> str:
    """Return the last part of the library's message, on one line."""
    return " ".join(text.rpartition(" - ")[2].split())[:200]


def _is_endpoint(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and "@" not in url.netloc and url.port != 0
    except ValueError:
        return False


def _about(found: obstore.GetResult) -> dict[str, str | int | None]:
    text = found.attributes.get(_ABOUT, "")
    about = json.loads(base64.urlsafe_b64decode(text)) if text else {}
    assert isinstance(about, dict)
    return about
