"""Extracts the file in a multipart/form-data body (RFC 7578). It works piece by piece as the body arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fal_server.core.faults import InvalidArgument

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_HEADER_BYTES = 16 * 1024


async def file_field(
    content_type: str, chunks: AsyncIterator[bytes], field: str = "file_upload"
) -> AsyncGenerator[bytes]:
    """Yield the content of a form's file, skipping all other fields.

    Args:
        content_type: of the body, with its boundary.
        chunks: the body.
        field: the name of the file's field.

    Raises:
        InvalidArgument: the body is not such a form, is truncated, or has no such field.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidArgument(field, f"send the file as field {field} of a multipart/form-data body")
    form = _Form(field.encode())
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks(), max_header_size=_MOST_HEADER_BYTES)
    except FormParserError as error:
        raise _malformed(error) from error
    async for chunk in chunks:
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise _malformed(error) from error
        for piece in form.take():
            yield piece
    if not form.ended:
        raise InvalidArgument("body", "the form was cut off: send it again")
    if not form.found:
        raise InvalidArgument(field, f"the form has no field {field}: send the file under that name")


def _malformed(error: FormParserError) -> InvalidArgument:
    return InvalidArgument("body", f"the body is not a well-formed multipart/form-data: {error}")


class _Form:
    """Collects the wanted field from the parser's events.

    Attributes:
        found: whether the field has started.
        ended: whether the form has its end.
    """

    def __init__(self, field: bytes) -> None:
        self._field = field
        self._header_name = self._header_value = b""
        self._in_field = False
        self._pieces: list[bytes] = []
        self.found = self.ended = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def take(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin_part(self) -> None:
        self._in_field = False

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name, value = self._header_name.lower(), self._header_value
        self._header_name = self._header_value = b""
        if name == b"content-disposition" and not self.found:
            self._in_field = parse_options_header(value)[1].get(b"name") == self._field
            self.found = self._in_field

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_field:
            self._pieces.append(data[start:end])

    def _end(self) -> None:
        self.ended = True
