"""Describes the image that an app runs in by a Dockerfile."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict, Unpack

BUILDERS = {"depot", "service", "worker"}
Builder = Literal["depot", "service", "worker"]
CommandOverride: TypeAlias = str | list[str]
DEFAULT_COMPRESSION = "gzip"
DEFAULT_FORCE_COMPRESSION = False
DEFAULT_DOCKERIGNORE_PATTERNS = [
    ".git",
    ".gitignore",
    ".dockerignore",
    "Dockerfile",
    "Dockerfile.*",
    "*.md",
    "__pycache__",
    "*.pyc",
    ".DS_Store",
    ".venv",
    "venv",
    ".env",
    "node_modules",
]
_INSTRUCTION = re.compile(r"^\s*(COPY|ADD)\s+(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_FLAG = re.compile(r"--[\w-]+(?:=(?:\"[^\"]*\"|\S+))?\s*")


class ImageOptions(TypedDict, total=False):
    """The attributes of `ContainerImage`, except its Dockerfile."""

    build_args: dict[str, str]
    registries: dict[str, dict[str, str]]
    builder: str | None
    compression: str
    force_compression: bool
    secrets: dict[str, str]
    entrypoint: str | list[str] | None
    cmd: str | list[str] | None
    use_isolate: bool | None
    context_dir: str | os.PathLike[str]
    dockerignore: list[str] | None
    dockerignore_path: str | os.PathLike[str] | None


@dataclass(slots=True)
class ContainerImage:
    """An image to build and run in.

    Attributes:
        dockerfile_str: the Dockerfile's text.
        build_args: values for its ARGs.
        registries: `username` and `password` by registry host.
        builder: the program that builds the image; None leaves the choice to the platform.
        compression: how to compress the layers.
        force_compression: compress layers again even if they are already compressed.
        secrets: values for the build's secret mounts. Secrets and registry passwords go to the controller, but
            never into a pickle or a repr.
        entrypoint, cmd: replace those of the image.
        use_isolate: whether the app's Python code runs in the image; False runs the image unchanged.
        context_dir: the directory that COPY and ADD copy from.
        dockerignore: patterns of files to leave out, as in a .dockerignore.
        dockerignore_path: a file with such patterns; by default `.dockerignore` in the context directory.

    Raises:
        ValueError: the Dockerfile is empty, a registry lacks its username or password, or a value has the wrong type.
        FileNotFoundError: `dockerignore_path` does not exist.
    """

    dockerfile_str: str
    build_args: dict[str, str] = field(default_factory=dict)
    registries: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    builder: str | None = None
    compression: str = DEFAULT_COMPRESSION
    force_compression: bool = DEFAULT_FORCE_COMPRESSION
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    entrypoint: str | list[str] | None = None
    cmd: str | list[str] | None = None
    use_isolate: bool | None = None
    context_dir: str | os.PathLike[str] = field(default_factory=Path.cwd)
    dockerignore: list[str] | None = None
    dockerignore_path: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not self.dockerfile_str.strip():
            raise ValueError("ContainerImage: the Dockerfile is empty: give its text, or use from_dockerfile(path)")
        for host, login in self.registries.items():
            if not {"username", "password"} <= login.keys():
                raise ValueError(f"ContainerImage: the registry {host} lacks a username or a password")
        for name in ("entrypoint", "cmd"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, str) or all(isinstance(part, str) for part in value)):
                raise ValueError(f"ContainerImage: {name} is {value!r}: give a text or a list of texts")
        if self.dockerignore_path is not None and not Path(self.dockerignore_path).is_file():
            raise FileNotFoundError(f"ContainerImage: there is no dockerignore file {self.dockerignore_path}")

    @classmethod
    def from_dockerfile_str(cls, text: str, **options: Unpack[ImageOptions]) -> ContainerImage:
        """Return an image from a Dockerfile's text. The options are the class's attributes."""
        return cls(text, **options)

    @classmethod
    def from_dockerfile(cls, path: str | os.PathLike[str], **options: Unpack[ImageOptions]) -> ContainerImage:
        """Return an image from a Dockerfile; the options are the class's attributes."""
        try:
            text = Path(path).read_text()
        except FileNotFoundError:
            if not os.environ.get("IS_ISOLATE_AGENT"):
                raise
            text = "FROM scratch"  # the runner already has its image, so its Dockerfile stays with the deployer
        return cls.from_dockerfile_str(text, **options)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Omit secrets and passwords. The controller keeps pickles, and every runner loads them."""
        return _bare_image, (self.dockerfile_str,)

    def to_dict(self) -> dict[str, object]:
        """Return the image as a deploy sends it, with passwords and secrets."""
        image: dict[str, object] = {
            "dockerfile_str": self.dockerfile_str,
            "build_args": self.build_args,
            "registries": self.registries,
            "builder": self.builder,
            "compression": self.compression,
            "force_compression": self.force_compression,
            "secrets": self.secrets,
            "docker_context_dir": str(self.context_dir),
            "docker_files_list": self.get_copy_add_sources(),
            "docker_ignore": [pattern_to_regex(pattern) for pattern in self._ignored()],
        }
        optional = {"entrypoint": self.entrypoint, "cmd": self.cmd, "use_isolate": self.use_isolate}
        return image | {name: value for name, value in optional.items() if value is not None}

    def _ignored(self) -> list[str]:
        if self.dockerignore is not None:
            return self.dockerignore
        path = Path(self.dockerignore_path or Path(self.context_dir) / ".dockerignore")
        if not path.is_file():
            return list(DEFAULT_DOCKERIGNORE_PATTERNS)
        lines = (line.strip() for line in path.read_text().splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    def add_dockerignore(
        self, patterns: Sequence[str] | None = None, path: str | os.PathLike[str] | None = None
    ) -> None:
        """Set the files to leave out, by patterns or a pattern file.

        Raises:
            ValueError: both or neither are given.
        """
        if (patterns is None) == (path is None):
            raise ValueError("add_dockerignore: give either patterns or a path")
        self.dockerignore = None if patterns is None else list(patterns)
        self.dockerignore_path = path

    def get_copy_add_sources(self) -> list[str]:
        """Return the context directory's sources of COPY and ADD, in order."""
        joined = re.sub(r"\\\n\s*", " ", self.dockerfile_str)
        found: list[str] = []
        for instruction, rest in _INSTRUCTION.findall(joined):
            from_elsewhere = re.search(r"--from=", rest) if instruction.upper() == "COPY" else re.search(r"://", rest)
            if not from_elsewhere:
                found += [source.lstrip("/") for source in _sources(rest)]
        return found


def _sources(rest: str) -> list[str]:
    """Return the sources of one COPY or ADD in either form. Its last word is the destination."""
    while match := _FLAG.match(rest):
        rest = rest[match.end() :]
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except ValueError as error:
            raise ValueError(f"the Dockerfile has a COPY or ADD that cannot be read: {rest}") from error
    else:
        words = shlex.split(rest)
    return [str(word) for word in words[:-1]]


def _bare_image(text: str) -> ContainerImage:
    return ContainerImage(text, dockerignore=[])


def pattern_to_regex(pattern: str) -> str:
    """Return a gitignore pattern as a regular expression. It is for paths relative to the context directory."""
    directory_only = pattern.endswith("/")
    body = pattern.rstrip("/")
    anchored = "/" in body
    body = body.lstrip("/")
    parts: list[str] = []
    index = 0
    while index < len(body):
        if body.startswith("**/", index):
            parts.append("(?:.+/)?")
            index += 3
        elif body.startswith("**", index):
            parts.append(".*")
            index += 2
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(body[index], re.escape(body[index])))
            index += 1
    return f"^{'' if anchored else '(?:.+/)?'}{''.join(parts)}{'/.*' if directory_only else '(?:/.*)?'}$"
