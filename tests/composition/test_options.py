"""The options of a controller: `fal up` has all of them and forwards them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fal_cli.main import build_parser
from fal_server.composition.options import add_options, as_arguments
from fal_server.composition.settings import Settings, TlsSettings

# A value for each kind of option, or for one of another kind than its name for the value says.
VALUES = {
    "--traces": ["http://127.0.0.1:4318/v1/traces"],
    "ADDRESS": ["::1"],
    "PORT": ["1"],
    "N": ["0"],
    "DAYS": ["0.5"],
    "SECONDS": ["1.5"],
    "--engine": ["ray"],
    "--region": ["us-east"],
    "--trusted-network": ["10.0.0.0/8", "fd00::/8"],
    "--content": ["s3://bucket/fal"],
    "HOST:PORT": ["10.0.0.4:6379"],
    "SHARE": ["0.1"],
    "SIZE": ["1024"],
    "FILE": ["/a b/cert.pem"],
    "DIR": ["/mnt/fal"],
    "URL": ["postgresql://me@host/fal"],
    "LABEL=N": ["GPU-H100=2", "GPU-A100"],
    "NAME": ["one", "two"],
    "CIDR": ["10.0.0.0/8", "::1/128"],
    "LEVEL": ["view"],
    "PATH[:rw]": ["/a b:rw", "/models"],
}


def test_fal_up_passes_every_option_on():
    parser = argparse.ArgumentParser()
    add_options(parser)
    chosen = []
    for action in parser._actions[1:]:
        (flag,) = action.option_strings
        if action.nargs == 0:
            chosen.append(flag)
        else:
            chosen += [f"{flag}={value}" for value in VALUES.get(flag) or VALUES[str(action.metavar)]]
    args = build_parser(["up"]).parse_args(["up", *chosen])
    assert as_arguments(args) == chosen
    assert len(chosen) > 10


def test_a_path_is_passed_on_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = build_parser(["up"]).parse_args(["up", "--tls-cert", "cert.pem"])
    assert f"--tls-cert={tmp_path / 'cert.pem'}" in as_arguments(args)


@pytest.mark.parametrize(
    "wrong",
    [
        "--port=65536",
        "--port=x",
        "--gpu=A100",
        "--gpu=GPU-A100=x",
        "--gpu=GPU-A100=1001",
        "--gpu=GPU-A100=99999999999999",
        "--host=",
        "--host=127.0.0.1:7400",
        "--host=[::1]",
        "--region=none",
        "--region=US",
        "--warm-shims=-1",
        "--retention-days=week",
        "--retention-days=-1",
        "--file-retention-days=nan",
        "--request-sample=1.1",
        "--request-sample=nan",
        "--log-bytes=",
        "--log-bytes=0",
        "--log-bytes=1.5G",
        "--log-bytes=G",
        "--allowed-host=",
        "--allowed-host=a b",
        "--allowed-host=http://box.example",
        "--allowed-host=box.example:7477",
        "--allowed-host=*.box.example",
        "--webhook-allow=example.com",
        "--webhook-allow=10.0.0.1/8",
        *(f"--tls-name={name}" for name in ("bad name!", "", "a..b", "-a", "*", "a.*.b", "é.example", "x" * 64)),
        "--tls-name=https://box",
        "--tls-name=box:7400",
        "--trusted-network=10.0.0.5/24",
        "--trusted-network=0.0.0.0/0",
        "--trusted-network=8.8.8.0/24",
        "--trusted-network=10.0.0.0/7",
        "--trusted-network=127.0.0.0/8",
        "--trusted-network=2000::/3",
        "--trusted-network=::ffff:8.8.8.0/120",
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(wrong, capsys):
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([wrong])
    assert ended.value.code == 2
    assert wrong.partition("=")[2] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (f"--region={'a' * 64}", "at most 63 small letters"),
        ("--region=none", "a machine without a region"),
        ("--webhook-allow=10.0.0.0/99", "'10.0.0.0/99' is not a network such as 10.0.0.0/8\n"),
        ("--webhook-allow=10.0.0.1/8", "use 10.0.0.0/8 for all of it"),
        ("--trusted-network=8.8.8.0/24", "requests would be readable on their way"),
        ("--host=127.0.0.1:7400", "--port has the port"),
        ("--gpu=GPU-A=-1", "'GPU-A=-1' has no number of GPUs from 0 to 1000 after ="),
        ("--gpu=GPU-A=abc", "'GPU-A=abc' has no number of GPUs from 0 to 1000 after ="),
        ("--gpu=GPU-A=1001", "'GPU-A=1001' has no number of GPUs from 0 to 1000 after ="),
    ],
)
def test_a_refusal_names_what_to_give(wrong, message, capsys):
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([wrong])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["up", "--content-dir="],
        ["up", "--machine-types="],
        ["up", "--ray-python="],
        ["up", "--tls-cert="],
        ["up", "--tls-key="],
        ["up", "--tls-client-ca="],
        ["node", "up", "--node-dir="],
        *(
            [*command.split(), "--state-dir="]
            for command in ("up", "down", "status", "env", "doctor", "node join", "node list")
        ),
        ["doctor", "--bundle="],
    ],
)
def test_an_empty_path_is_not_the_current_directory(given, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser(given).parse_args(given)
    assert ended.value.code == 2
    assert f"{given[-1][:-1]}: the path is empty" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["127.0.0.1:4318", "ftp://x/", "http://me:secret@127.0.0.1:4318/v1/traces"])
def test_a_receiver_of_spans_is_an_address_without_a_password(wrong, capsys):
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([f"--traces={wrong}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "argument --traces: this is not an http or https URL without a password" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("host", "names", "address"),
    [
        ("127.0.0.1", None, "127.0.0.1:80"),
        ("::1", None, "[::1]:80"),
        ("127.0.0.1", ("box",), "127.0.0.1:80"),
        ("0.0.0.0", (), "localhost:80"),
        ("0.0.0.0", ("box.example", "other"), "box.example:80"),
        ("192.0.2.1", (), "192.0.2.1:80"),
    ],
)
def test_where_callers_reach_it(host, names, address):
    tls = None if names is None else TlsSettings(certificate=None, key=Path(), names=names)
    assert Settings(host=host, tls=tls).address(80) == address


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("mysql://me@host/fal", "not the URL of a PostgreSQL database"),
        ("fal.db", "not the URL of a PostgreSQL database"),
        ("postgresql://[", "not the URL of a PostgreSQL database"),
        ("postgresql://me:hunter2@host/fal", "FAL_DATABASE_URL"),
        ("postgresql://me@host/fal?password=hunter2", "FAL_DATABASE_URL"),
    ],
)
def test_a_database_is_a_url_without_a_password(wrong, message, capsys):
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([f"--database={wrong}"])
    assert ended.value.code == 2
    output = capsys.readouterr().err
    assert message in output
    assert "hunter2" not in output
