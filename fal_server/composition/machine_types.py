"""Reads an operator's own machine types from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from fal_server.core.faults import InvalidArgument
from fal_server.core.machines import (
    MOST_DISK_MIB,
    MOST_GPU_DISK_MIB,
    MOST_GPU_PROCESSES,
    MOST_PROCESSES,
    MachineType,
    is_gpu_label,
)
from fal_server.core.revisions import MOST_GPUS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE = re.compile(r"(\d{1,9}) ?([MGT])(?:i?B)?", re.IGNORECASE)
_GPUS = re.compile(r"(GPU(?:-[A-Za-z0-9._-]{1,59})?)(?:=(\d{1,3}))?", re.IGNORECASE)
_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}
_FIELDS = ("cpu", "memory", "gpus", "processes", "disk")
_LEAST_MIB, _MOST_MIB = 64, 1 << 24
_PROCESSES = range(16, (1 << 22) + 1)
_MOST_CORES = 1024


def read_machine_types(path: Path) -> list[MachineType]:
    """Read machine types.

    Raises:
        InvalidArgument: the file cannot be read, or part of it is wrong; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgument("machine_types", f"the machine types in {path} cannot be read: {reason}") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument("machine_types", f"{path} is not TOML: {error}") from error
    found = list(_Reader(path, text).types(tables))
    names = [machine_type.name for machine_type in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument("machine_types", f"{path} describes {twice} twice: case does not tell types apart")
    return found


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def types(self, tables: Mapping[str, object]) -> Iterator[MachineType]:
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise self._wrong(
                    name, "", f"is not a table: begin each machine type with its name, as [{name.upper()}]"
                )
            if not _NAME.fullmatch(name):
                raise self._wrong(name, "", "is not a name: use up to 64 letters, digits, '.', '_' and '-'")
            yield self._type(name, table)

    def _type(self, name: str, table: Mapping[str, object]) -> MachineType:
        unknown = next((key for key in table if key not in _FIELDS), None)
        if unknown is not None:
            raise self._wrong(name, unknown, f"is unknown: use {', '.join(_FIELDS)}")
        gpu, gpus = self._gpus(name, table.get("gpus"))
        memory = self._memory(name, table.get("memory"), optional=bool(gpu))
        disk = self._size(name, "disk", table.get("disk", f"{MOST_GPU_DISK_MIB if gpu else MOST_DISK_MIB}M"))
        return MachineType(
            name=name.upper(),
            milli_cpus=self._milli_cpus(name, table.get("cpu")),
            memory_mib=memory,
            processes=self._processes(name, table.get("processes"), MOST_GPU_PROCESSES if gpu else MOST_PROCESSES),
            disk_mib=disk,
            gpu=gpu,
            gpus=gpus,
        )

    def _milli_cpus(self, name: str, value: object) -> int:
        if value is None:
            raise self._wrong(name, "", "has no cpu: say how many cores it counts for, as cpu = 2")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= _MOST_CORES:
            raise self._wrong(name, "cpu", f"is {value!r}: use a number of cores from 0.01 to {_MOST_CORES}")
        return round(value * 1000)

    def _memory(self, name: str, value: object, *, optional: bool) -> int | None:
        if value is None and optional:
            return None
        if value is None:
            raise self._wrong(name, "", 'has no memory: say how much it has, as memory = "4G"')
        return self._size(name, "memory", value)

    def _size(self, name: str, field: str, value: object) -> int:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        mib = int(match[1]) * _MIB[match[2].upper()] if match else 0
        if not _LEAST_MIB <= mib <= _MOST_MIB:
            raise self._wrong(name, field, f'is {value!r}: use a size from "{_LEAST_MIB}M" to "16T", such as "4G"')
        return mib

    def _processes(self, name: str, value: object, usual: int) -> int:
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, int) or value not in _PROCESSES:
            least, most = _PROCESSES[0], _PROCESSES[-1]
            raise self._wrong(name, "processes", f"is {value!r}: use a whole number from {least} to {most}")
        return value

    def _gpus(self, name: str, value: object) -> tuple[str, int]:
        if value is None:
            return (name.upper(), 1) if is_gpu_label(name.upper()) else ("", 0)
        match = _GPUS.fullmatch(value) if isinstance(value, str) else None
        count = int(match[2] or 1) if match else 0
        if match is None or not 1 <= count <= MOST_GPUS:
            raise self._wrong(name, "gpus", f'is {value!r}: use a label and a number, such as "GPU-H100=2"')
        return match[1].upper(), count

    def _wrong(self, name: str, field: str, what: str) -> InvalidArgument:
        subject = f"{field} of {name}" if field else name
        return InvalidArgument("machine_types", f"{self._path}, line {self._line(name, field)}: {subject} {what}")

    def _line(self, name: str, field: str) -> int:
        """Find the line of a table or field by the usual forms. TOML parsers do not report lines."""
        key = rf"""(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')"""
        begin = re.compile(rf"\s*\[\s*{key}\s*\]|\s*{key}\s*[.=]")
        start = next((number for number, line in enumerate(self._lines, 1) if begin.match(line)), 1)
        if field:
            within = re.compile(rf"""(?:\s*|.*[.{{,]\s*)["']?{re.escape(field)}["']?\s*=""")
            for number in range(start, len(self._lines) + 1):
                if number > start and self._lines[number - 1].lstrip().startswith("["):
                    break
                if within.match(self._lines[number - 1]):
                    return number
        return start
