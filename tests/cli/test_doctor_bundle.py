"""`fal doctor --bundle`: what it collects. No secret is in it."""

from __future__ import annotations

import base64
import tarfile
from urllib.parse import quote

import pytest

from fal_cli.commands.doctor.bundle import write_bundle
from fal_cli.exit_codes import CommandError
from fal_cli.main import main

# Each contains this word, and no report may.
PLANTED = "pl4nted"
TOKEN = f"eyJhbGciOi.{PLANTED}payload.{PLANTED}signature"


@pytest.fixture
def full_home(home, monkeypatch):
    """Put secrets wherever the doctor looks, in every encoding."""
    state = home / "state"
    state.mkdir()
    key = f"11111111-2222-3333-4444-555555555555:{PLANTED}env"
    monkeypatch.setenv("FAL_KEY", key)
    monkeypatch.setenv("FAL_MASTER_KEY", f"{PLANTED}master")
    monkeypatch.setenv("FAL_DATABASE_URL", f"postgresql://me:{PLANTED}-database@db/fal")
    monkeypatch.setenv("FAL_OF_ANOTHER_KIND", f"{PLANTED}other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{PLANTED}/aws+x")
    monkeypatch.setenv("https_proxy", f"http://me:{PLANTED}proxy@proxy.example:3128")
    monkeypatch.setenv("all_proxy", f"me:{PLANTED}bare@bare.example:3128")
    monkeypatch.setenv("FAL_GRPC_HOST", "127.0.0.1:1")
    monkeypatch.setenv("FAL_HOME_DIR", str(home))
    (home / "auth0_token").write_text(f"{PLANTED}refresh\n{TOKEN}\n")
    (home / "config.toml").write_text(
        f'[work]\nkey = "id:{PLANTED}shared" # {PLANTED}comment\nhost = "api.example.com"\nother = "{PLANTED}x"\n'
    )
    (home / "config.fal-grpc.toml").write_text(f'[local]\nkey = "id:{PLANTED}own"\nhost = "127.0.0.1:1"\n')
    (state / "admin.key").write_text(f"0a1b2c3d:{PLANTED}admin\n")
    (state / "master.key").write_text(f"{PLANTED}mk\n")
    lines = [
        "INFO it listens on 127.0.0.1:7400",
        f"refused Authorization: Key 9999aaaa:{PLANTED}inaline",
        f"Bearer {PLANTED}bearer and Basic {PLANTED}basic",
        f"proxy=me:{PLANTED}proxy2@proxy.example and 'you:{PLANTED}p@[::1]:80'",
        f"the url http://x:{PLANTED}inurl@host/ and password={PLANTED}pw",
        f'{{"token": "{PLANTED}json", "api_key": \'{PLANTED}quoted\'}}',
        f"admin {PLANTED}admin master {PLANTED}mk aws {quote(f'{PLANTED}/aws+x', safe='')}",
        base64.b64encode(f"0a1b2c3d:{PLANTED}admin".encode()).decode(),
        TOKEN,
    ]
    (state / "controller.log").write_text("\n".join(lines))
    return home


def content_of(path):
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.partition("/")[2]] = file.read().decode()
        return found


def test_what_helps_is_in_it_and_no_secret(full_home, capsys):
    report = full_home / "report.tar.gz"
    assert main(["doctor", "--state-dir", str(full_home / "state"), "--bundle", str(report)]) == 1
    captured = capsys.readouterr()
    assert f"Wrote {report}" in captured.err
    files = content_of(report)
    for name, text in {**files, "the terminal": captured.out + captured.err}.items():
        assert PLANTED not in text, name
        assert base64.b64encode(PLANTED.encode()).decode()[:8] not in text, name
    assert report.stat().st_mode & 0o777 == 0o600
    assert "it listens on 127.0.0.1:7400" in files["controller.log"]
    assert "FAL_GRPC_HOST=127.0.0.1:1" in files["environment.txt"]
    assert "FAL_KEY=(set)" in files["environment.txt"]
    assert "https_proxy=http://******@proxy.example:3128" in files["environment.txt"]
    assert "all_proxy=******@bare.example:3128" in files["environment.txt"]
    assert 'host = "api.example.com"' in files["config.toml"]
    assert "key = ******" in files["config.fal-grpc.toml"]
    assert "grpcio " in files["packages.txt"]
    assert '"healthy": false' in files["doctor.json"]


def test_a_file_that_is_there_is_not_replaced(home):
    report = home / "report.tar.gz"
    report.write_text("mine")
    with pytest.raises(CommandError, match="exists already"):
        write_bundle(report, {}, home / "state")
    assert report.read_text() == "mine"
