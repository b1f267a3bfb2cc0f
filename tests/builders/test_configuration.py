"""Which configurations of a virtualenv are accepted."""

from __future__ import annotations

import sys

import pytest

from fal_server.builders.configuration import parse
from fal_server.core.faults import InvalidArgument

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def layers(*requirements, **more):
    return parse({"requirements": list(requirements), **more}).layers


def test_defaults():
    parsed = parse({})
    assert (parsed.python_version, parsed.layers) == (OWN, (("cloudpickle", "grpcio"),))
    assert parse({"python_version": None, "requirements": [], "resolver": "uv", "tags": ["x"]}) == parsed
    assert parse({"python_version": "3.12.1"}).python_version == "3.12.1"


def test_layers_keep_their_order():
    assert layers(["torch"], [], [" numpy>=2 ", ""]) == (("torch",), ("numpy>=2", "cloudpickle", "grpcio"))
    assert layers("six", "# a comment") == (("six", "cloudpickle", "grpcio"),)


@pytest.mark.parametrize(
    "named", ["cloudpickle==3.1", "CloudPickle", "cloudpickle[x]>2", "cloudpickle @ https://x/y.whl"]
)
def test_a_named_cloudpickle_is_the_users(named):
    assert layers([named], ["six"]) == ((named,), ("six", "grpcio"))
    assert layers(named, "grpcio") == ((named, "grpcio"),)


@pytest.mark.parametrize(
    "requirement",
    [
        "six",
        "a.b-c_d[extra1,extra2] >= 1.0, < 2 ; python_version < '4'",
        "pkg @ git+https://github.com/x/y@main#egg=z",
        "https://example.com/x-1.0-py3-none-any.whl",
        "git+https://user:pw@example.com/x",
        "six # why",
        "numpy~=1.0",
        "x!=3",
    ],
)
def test_good_requirements(requirement):
    assert layers(requirement) == ((requirement, "cloudpickle", "grpcio"),)


def test_index_options():
    expected = (("--extra-index-url https://x/cu121", "torch", "cloudpickle", "grpcio"),)
    assert layers("--extra-index-url", "https://x/cu121", "torch") == expected
    assert layers("--extra-index-url=https://x/cu121", "torch") == expected
    assert layers("--extra-index-url https://x/cu121", "torch") == expected
    assert layers("torch", extra_index_urls=["https://x/cu121"]) == expected
    assert layers("-f https://x/links", "--no-binary=a,b") == (
        ("--find-links https://x/links", "--no-binary a,b", "cloudpickle", "grpcio"),
    )


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("-r /etc/passwd", "option '-r' is not allowed"),
        ("-r", "option '-r' is not allowed"),
        ("-e .", "option '-e' is not allowed"),
        ("-c", "option '-c' is not allowed"),
        ("--requirement=/etc/passwd", "option '--requirement' is not allowed"),
        ("--constraint x", "option '--constraint' is not allowed"),
        ("--find-links /etc", "option '--find-links' is not allowed"),
        ("--index-url=file:///etc", "option '--index-url' is not allowed"),
        ("--extra-index-url", "option '--extra-index-url' is not allowed"),
        ("--no-binary=a b", "option '--no-binary' is not allowed"),
        ("six\n-r /etc/passwd", "line break"),
        ("six\r--index-url x", "line break"),
        ("six \\", "line break"),
        ("six\0", "line break"),
        ("https://x/${FAL_MASTER_KEY}/y.whl", "variables are not expanded"),
        ("--extra-index-url=https://${KEY}@x", "variables are not expanded"),
        ("./mine", "a path on your machine"),
        ("/etc", "a path on your machine"),
        ("~/x", "a path on your machine"),
        ("file:///etc", "a path on your machine"),
        ("x @ file:///etc", "a path on your machine"),
        ("x @ /etc", "a path on your machine"),
        ("mine/sub", "not a requirement"),
        ("mine.whl/x", "not a requirement"),
        ("é", "not a requirement"),
        ("a b", "not a requirement"),
        ("x" * 4001, "longer than 4000"),
    ],
)
def test_bad_requirements(requirement, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        layers(requirement)
    assert caught.value.field == "environments"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"requirements": "six"}, "not a list"),
        ({"requirements": {"six": 1}}, "not a list"),
        ({"requirements": [1]}, "other than strings"),
        ({"requirements": ["six", ["six"]]}, "other than strings"),
        ({"requirements": [["six", None]]}, "other than strings"),
        ({"requirements": ["six"] * 2001}, "more than 2000"),
        ({"python_version": 3.11}, "python_version 3.11 is not"),
        ({"python_version": "3"}, "python_version '3' is not"),
        ({"python_version": "--help"}, "python_version '--help' is not"),
        ({"python_version": "2.7"}, "python_version '2.7' is not"),
        ({"constraints_file": "/etc/passwd"}, "'constraints_file'"),
        ({"extra_index_urls": "https://x"}, "extra_index_urls contains"),
        ({"extra_index_urls": ["file:///x"]}, "--extra-index-url"),
    ],
)
def test_bad_configurations(configuration, message):
    with pytest.raises(InvalidArgument, match=message):
        parse(configuration)


def test_passwords_do_not_get_into_messages():
    with pytest.raises(InvalidArgument) as caught:
        layers("bad name https://me:hunter2@x/y")
    assert "hunter2" not in caught.value.message
    assert "hunter2" not in repr(parse({"requirements": ["https://me:hunter2@x/y.whl"]}))
