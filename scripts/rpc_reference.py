"""Render the RPC reference in docs/reference/rpc. It has an index, and a page for each .proto file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from google.protobuf import descriptor_pb2

OUTPUT = "docs/reference/rpc"
STATUS_HEADING = "Status codes:"
_STATUS = re.compile(r"- ([A-Z_]+): (.+)")
_NOTE = "<!-- Generated from protos/ by `make proto`; not to be edited. -->"
_INDEX = """The services of package `fal.v1`, as the files in `protos/fal/v1` define them. A method is called as
`/fal.v1.SERVICE/METHOD`; a controller also serves the methods that `controller.IsolateController` has under that name,
with the same messages. In messages shared with it, field numbers from 1000 up are additions of this project.

Every call carries its key as the metadata entries `auth-key-id` and `auth-key`. A status that is not OK may carry
details from `google.rpc`: `ErrorInfo`, `BadRequest` with the field at fault, `RetryInfo` with the time to wait.

`Shim` is the exception to all of this: it is internal to the platform, spoken on a unix socket and without keys."""
_FILE_PATH = (12,)
_SERVICES, _METHODS, _MESSAGES, _ENUMS = 6, 2, 4, 5
_FIELDS, _NESTED_MESSAGES, _NESTED_ENUMS, _VALUES = 2, 3, 4, 2
_Field = descriptor_pb2.FieldDescriptorProto
_Path = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Types:
    """The types that fields refer to. They are the pages of messages and enums, and the map entries."""

    pages: dict[str, str] = field(default_factory=dict[str, str])
    maps: dict[str, descriptor_pb2.DescriptorProto] = field(default_factory=dict[str, descriptor_pb2.DescriptorProto])

    def link(self, full_name: str, page: str) -> str:
        """Return a type's name, linked if it has a page."""
        name = full_name.removeprefix(".")
        target = self.pages.get(full_name)
        if target is None:
            return f"`{name}`"
        short = name.removeprefix("fal.v1.")
        return f"[`{short}`]({'' if target == page else target}#{short.replace('.', '').lower()})"


def page_name(file: descriptor_pb2.FileDescriptorProto) -> str:
    """Return the name of the page for a .proto file."""
    return PurePosixPath(file.name).stem + ".md"


def messages_of(
    holder: descriptor_pb2.FileDescriptorProto | descriptor_pb2.DescriptorProto, prefix: str, path: _Path
) -> Iterator[tuple[str, _Path, descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto]]:
    """Yield each message and enum in a file or message: (qualified name, path, descriptor)."""
    if isinstance(holder, descriptor_pb2.FileDescriptorProto):
        messages, enums, at_message, at_enum = holder.message_type, holder.enum_type, _MESSAGES, _ENUMS
    else:
        messages, enums, at_message, at_enum = holder.nested_type, holder.enum_type, _NESTED_MESSAGES, _NESTED_ENUMS
    for number, enum in enumerate(enums):
        yield prefix + enum.name, (*path, at_enum, number), enum
    for number, message in enumerate(messages):
        here = (*path, at_message, number)
        yield prefix + message.name, here, message
        yield from messages_of(message, f"{prefix}{message.name}.", here)


def collect_types(files: list[descriptor_pb2.FileDescriptorProto]) -> Types:
    """Return the page of every message and enum in these files."""
    types = Types()
    for file in files:
        for name, _, item in messages_of(file, "", ()):
            full_name = f".{file.package}.{name}"
            if isinstance(item, descriptor_pb2.DescriptorProto) and item.options.map_entry:
                types.maps[full_name] = item
            else:
                types.pages[full_name] = page_name(file)
    return types


def comments_of(file: descriptor_pb2.FileDescriptorProto) -> dict[_Path, str]:
    """Return each item's comment in a file, unindented. The key is the item's path in the descriptor."""
    return {
        tuple(location.path): "\n".join(
            line.removeprefix(" ").rstrip() for line in location.leading_comments.splitlines()
        )
        for location in file.source_code_info.location
        if location.leading_comments
    }


def split_status_codes(comment: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a method's comment into prose and status codes. The codes come with their conditions."""
    prose, _, listing = comment.partition(STATUS_HEADING)
    joined = re.sub(r"\n +", " ", listing)
    return prose.strip(), [(code, text) for code, text in _STATUS.findall(joined)]


class Page:
    """Renders one page."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto, types: Types) -> None:
        self._file = file
        self._types = types
        self._comments = comments_of(file)
        self._page = page_name(file)

    def render(self) -> str:
        """Return the page as Markdown."""
        parts = [_NOTE, f"# {PurePosixPath(self._file.name).name}", self._comments.get(_FILE_PATH, "")]
        for number, service in enumerate(self._file.service):
            parts += self._service(service, (_SERVICES, number))
        items = sorted(messages_of(self._file, "", ()), key=lambda entry: entry[1])
        if items:
            parts.append("## Messages and enums")
        for name, path, item in items:
            if isinstance(item, descriptor_pb2.EnumDescriptorProto):
                parts += self._enum(name, item, path)
            elif not item.options.map_entry:
                parts += self._message(name, item, path)
        return "\n\n".join(part for part in parts if part) + "\n"

    def _service(self, service: descriptor_pb2.ServiceDescriptorProto, path: _Path) -> Iterator[str]:
        yield f"## Service {service.name}"
        yield self._comments.get(path, "")
        for number, method in enumerate(service.method):
            prose, codes = split_status_codes(self._comments.get((*path, _METHODS, number), ""))
            request = self._types.link(method.input_type, self._page)
            response = self._types.link(method.output_type, self._page)
            yield f"### {service.name}.{method.name}"
            yield (
                f"`/{self._file.package}.{service.name}/{method.name}`: "
                f"{'a stream of ' * method.client_streaming}{request} → "
                f"{'a stream of ' * method.server_streaming}{response}"
            )
            yield prose
            yield _table(("Status code", "When"), [(f"`{code}`", text) for code, text in codes])

    def _message(self, name: str, message: descriptor_pb2.DescriptorProto, path: _Path) -> Iterator[str]:
        yield f"### {name}"
        yield self._comments.get(path, "")
        rows = [
            (
                str(item.number),
                f"`{item.name}`",
                self._type(item),
                self._meaning(message, item, (*path, _FIELDS, number)),
            )
            for number, item in enumerate(message.field)
        ]
        yield _table(("No.", "Field", "Type", "Meaning"), rows)

    def _enum(self, name: str, enum: descriptor_pb2.EnumDescriptorProto, path: _Path) -> Iterator[str]:
        yield f"### {name}"
        yield self._comments.get(path, "")
        rows = [
            (str(value.number), f"`{value.name}`", _cell(self._comments.get((*path, _VALUES, number), "")))
            for number, value in enumerate(enum.value)
        ]
        yield _table(("No.", "Value", "Meaning"), rows)

    def _type(self, item: descriptor_pb2.FieldDescriptorProto) -> str:
        entry = self._types.maps.get(item.type_name)
        if entry is not None:
            key, value = (self._type(part) for part in entry.field)
            return f"map from {key} to {value}"
        name = (
            self._types.link(item.type_name, self._page)
            if item.type_name
            else f"`{_Field.Type.Name(item.type).removeprefix('TYPE_').lower()}`"
        )
        if item.label == _Field.LABEL_REPEATED:
            return f"repeated {name}"
        return f"optional {name}" if item.proto3_optional else name

    def _meaning(
        self, message: descriptor_pb2.DescriptorProto, item: descriptor_pb2.FieldDescriptorProto, path: _Path
    ) -> str:
        parts = [_cell(self._comments.get(path, ""))]
        if item.HasField("oneof_index") and not item.proto3_optional:
            parts.append(f"One of `{message.oneof_decl[item.oneof_index].name}`.")
        if item.options.debug_redact:
            parts.append("Secret: kept out of logs and errors.")
        return " ".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _index(files: list[descriptor_pb2.FileDescriptorProto]) -> str:
    rows: list[tuple[str, ...]] = []
    for file in files:
        comments = comments_of(file)
        for service_number, service in enumerate(file.service):
            for number, method in enumerate(service.method):
                anchor = f"{page_name(file)}#{service.name}{method.name}".lower()
                prose, _ = split_status_codes(comments.get((_SERVICES, service_number, _METHODS, number), ""))
                rows.append((f"[`{service.name}.{method.name}`]({anchor})", _cell(_first_sentence(prose))))
    return "\n\n".join([_NOTE, "# RPC reference", _INDEX, _table(("Method", "What it does"), rows)]) + "\n"


def render(descriptors: descriptor_pb2.FileDescriptorSet, package: str) -> dict[str, str]:
    """Return all pages of a package, by path in the project."""
    files = sorted((file for file in descriptors.file if file.package == package), key=lambda file: file.name)
    types = collect_types(files)
    pages = {f"{OUTPUT}/{page_name(file)}": Page(file, types).render() for file in files}
    return {f"{OUTPUT}/index.md": _index(files), **pages}
