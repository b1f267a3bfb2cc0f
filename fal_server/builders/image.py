"""Checks the configuration of a `container` environment, and creates its Dockerfile."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fal_server.builders.configuration import FIELD, parse
from fal_server.core.faults import InvalidArgument
from fal_server.core.revisions import EnvironmentSpec, Json

REQUIREMENTS_SECRET = "fal_requirements"  # noqa: S105 - the name of a mount
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_FROM = re.compile(r"^\s*FROM\s", re.MULTILINE | re.IGNORECASE)
_USER = re.compile(r"^\s*USER\s+(\S+)", re.MULTILINE | re.IGNORECASE)
_REFERENCE = re.compile(r"[A-Za-z0-9][\w./:@-]{0,500}")
# Ignored keys, for other builders.
_IGNORED = {"builder", "compression", "force_compression", "docker_context_dir", "docker_files_list", "docker_ignore"}
_KNOWN = {"dockerfile_str", "image", "build_args", "secrets", "registries", "entrypoint", "cmd", "use_isolate"}
# The engine reads these, so an argument of such a name would change how it works.
_ENGINES_OWN = re.compile(
    r"PATH|HOME|TMPDIR|LD_\w+|XDG_\w+|CONTAINERS?_\w+|DOCKER_\w+|BUILDAH_\w+|STORAGE_\w+|REGISTRY_\w+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """The credentials for a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfiguration:
    """A checked configuration.

    Attributes:
        dockerfile: the complete text, with what a runner needs.
        layers: requirements files, by the names of the Dockerfile's secret mounts.
        context: path and digest of each file that the Dockerfile may copy.
    """

    dockerfile: str
    layers: Mapping[str, str] = field(repr=False)
    build_args: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    registries: Mapping[str, Login]
    context: tuple[tuple[str, str], ...]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None


def parse_image(spec: EnvironmentSpec) -> ImageConfiguration:
    """Check a configuration as a client sent it.

    Raises:
        InvalidArgument: it is wrong (field `environments`).
    """
    given = dict(spec.configuration)
    image = given.pop("image", None)
    context = given.pop("context_files", [])
    if not isinstance(image, Mapping):
        raise InvalidArgument(
            FIELD, "the environment's configuration has no image: give image.dockerfile_str or image.image"
        )
    unknown = sorted(set(image) - _KNOWN - _IGNORED)
    if unknown:
        raise InvalidArgument(FIELD, f"image has unknown keys: {', '.join(unknown)[:200]}; remove them")
    requirements = parse(given).layers  # the other keys are those of a virtualenv
    layers: dict[str, str] = {}
    text = _base(image)
    if not spec.runs_itself:
        user = _last_user(text)
        text += "USER root\n" if user else ""
        version = given.get("python_version")
        if isinstance(version, str):
            text += _check_python(version)
        for number, layer in enumerate(requirements):
            content = "\n".join(layer) + "\n"
            layers[f"{REQUIREMENTS_SECRET}_{number}"] = content
            text += _install(f"{REQUIREMENTS_SECRET}_{number}", content)
        text += f"USER {user}\n" if user else ""
    return ImageConfiguration(
        dockerfile=text,
        layers=layers,
        build_args=_texts(image.get("build_args"), "build_args", _NAME),
        secrets=_texts(image.get("secrets"), "secrets", _SECRET_NAME),
        registries=_logins(image.get("registries")),
        context=tuple(_pair(item) for item in (context if isinstance(context, Sequence) else ())),
        entrypoint=_command(image.get("entrypoint"), "entrypoint"),
        cmd=_command(image.get("cmd"), "cmd"),
    )


def _base(image: Mapping[str, Json]) -> str:
    dockerfile, reference = image.get("dockerfile_str"), image.get("image")
    if isinstance(dockerfile, str) and dockerfile.strip() and reference is None:
        return dockerfile.rstrip() + "\n"
    if isinstance(reference, str) and _REFERENCE.fullmatch(reference) and dockerfile is None:
        return f"FROM {reference}\n"
    raise InvalidArgument(
        FIELD, "image needs either dockerfile_str, a Dockerfile's text, or image, such as 'python:3.11-slim'"
    )


def _last_user(dockerfile: str) -> str | None:
    """Return the last user that the last stage names. None leaves the base image's."""
    stage = _FROM.split(dockerfile)[-1]
    found = _USER.findall(stage)
    return found[-1] if found else None


def _check_python(version: str) -> str:
    minor = ".".join(version.split(".")[:2])
    code = (
        'import sys; found = "%d.%d" % sys.version_info[:2]; '
        f'sys.exit(0 if found == "{minor}" else "the image has Python " + found + ", the app needs {minor}")'
    )
    return f"RUN python3 -c {shlex.quote(code)}\n"


def _install(secret: str, content: str) -> str:
    # The build cache ignores mounted files, so the digest makes other requirements another layer. The mode lets a base
    # image's user read the file, which need not be root.
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    return (
        f"RUN --mount=type=secret,id={secret},mode=0444 : {digest} && "
        "PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore "
        f"python3 -m pip install --no-input --disable-pip-version-check --no-cache-dir -r /run/secrets/{secret}\n"
    )


def _texts(value: Json, name: str, allowed: re.Pattern[str]) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(text, str) and "\0" not in text for text in value.values()):
        for key in value:
            if not allowed.fullmatch(key) or (name == "build_args" and _ENGINES_OWN.fullmatch(key)):
                raise InvalidArgument(
                    FIELD, f"image.{name} has {key[:80]!r}, which cannot be a name there: choose another"
                )
        return {key: str(text) for key, text in value.items()}
    raise InvalidArgument(FIELD, f"image.{name} is not a table of strings: write it as in {{'NAME': 'value'}}")


def _logins(value: Json) -> dict[str, Login]:
    logins: dict[str, Login] = {}
    for host, login in value.items() if isinstance(value, Mapping) else ():
        username = login.get("username") if isinstance(login, Mapping) else None
        password = login.get("password") if isinstance(login, Mapping) else None
        if not isinstance(username, str) or not isinstance(password, str):
            raise InvalidArgument(FIELD, f"image.registries has no username and password for {host[:80]!r}")
        logins[host] = Login(username=username, password=password)
    return logins


def _command(value: Json, name: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise InvalidArgument(FIELD, f"image.{name} cannot be split into words: {error}") from None
    if isinstance(value, Sequence) and all(isinstance(word, str) for word in value):
        return tuple(str(word) for word in value)
    raise InvalidArgument(
        FIELD, f"image.{name} is neither a string nor a list of strings: write it as in ['python', 'app.py']"
    )


def _pair(item: Json) -> tuple[str, str]:
    if isinstance(item, Sequence) and len(item) == 2:
        return str(item[0]), str(item[1])
    raise InvalidArgument(
        FIELD, "context_files is not a list of paths and digests: leave it out, and the client lists the files"
    )
