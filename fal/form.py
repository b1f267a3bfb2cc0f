"""A file as a multipart/form-data body (RFC 7578), as the controller's files are sent."""

from __future__ import annotations

from uuid import uuid4


def file_form(content: bytes, file_name: str, field: str = "file_upload") -> tuple[bytes, str]:
    """A body with one file.

    Args:
        content: of the file.
        file_name: what it is called; what cannot stand in a header is replaced.
        field: the form's field.

    Returns:
        The body and its content type.
    """
    boundary = uuid4().hex
    name = "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "_" for letter in file_name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
