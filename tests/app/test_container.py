"""ContainerImage: what a Dockerfile copies, and what is ignored. Passwords stay out of pickles and reprs."""

from __future__ import annotations

import pickle
import re

import pytest

from fal.container import ContainerImage, pattern_to_regex

DOCKERFILE = """
FROM python:3.11 AS base
COPY src/ setup.py /app/
COPY --from=base /x /y
COPY --chown=1:1 "with space.txt" /z
ADD https://example.org/a.tgz /a
ADD ["one.json", "/two.json", "/b/"]
RUN true && \\
    echo COPY no
COPY \\
    late.py /
"""


def test_sources_of_copy_and_add():
    sources = ContainerImage(DOCKERFILE).get_copy_add_sources()
    assert sources == ["src/", "setup.py", "with space.txt", "one.json", "two.json", "late.py"]


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.pyc", "a/b.pyc", True),
        ("*.pyc", "a/b.py", False),
        (".git", ".git/config", True),
        (".git", "deep/.git/config", True),
        ("/top", "top/x", True),
        ("/top", "deep/top/x", False),
        ("docs/", "docs/a.md", True),
        ("docs/", "docs", False),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "a/z", True),
        ("file?.txt", "file1.txt", True),
        ("file?.txt", "file.txt", False),
    ],
)
def test_ignore_patterns(pattern, path, ignored):
    assert bool(re.search(pattern_to_regex(pattern), path)) is ignored


def test_as_it_is_sent(tmp_path):
    (tmp_path / ".dockerignore").write_text("# comment\n\n*.log\n")
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY a /\n")
    image = ContainerImage.from_dockerfile(tmp_path / "Dockerfile", context_dir=tmp_path, cmd=["run"])
    assert image.to_dict() == {
        "dockerfile_str": "FROM x\nCOPY a /\n",
        "build_args": {},
        "registries": {},
        "builder": None,
        "compression": "gzip",
        "force_compression": False,
        "secrets": {},
        "docker_context_dir": str(tmp_path),
        "docker_files_list": ["a"],
        "docker_ignore": [pattern_to_regex("*.log")],
        "cmd": ["run"],
    }


def test_passwords_stay_where_they_are():
    login = {"username": "u", "password": "open-sesame"}
    image = ContainerImage("FROM x", registries={"r": login}, secrets={"S": "open-sesame"})
    assert "open-sesame" not in repr(image)
    assert b"open-sesame" not in pickle.dumps(image)
    assert pickle.loads(pickle.dumps(image)).dockerfile_str == "FROM x"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dockerfile_str": " "}, "Dockerfile is empty"),
        ({"dockerfile_str": "FROM x", "registries": {"r": {"username": "u"}}}, "lacks a username or a password"),
        ({"dockerfile_str": "FROM x", "cmd": [1]}, "cmd is"),
    ],
)
def test_wrong_images_are_refused(options, words):
    with pytest.raises(ValueError) as caught:
        ContainerImage(**options)
    assert words in str(caught.value)
