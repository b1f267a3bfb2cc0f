"""Files of a whole controller: /data, apps' files, and what apps make. Commands and runners use /data. TLS is on."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.controller import BIN, Controller, running

APP = """
import fal
from fal.toolkit import File


class Filing(fal.App, name="filing"):
    machine_type = "XS"
    app_files = ["assets", "tool.sh", "helper.py"]

    @fal.endpoint("/")
    def run(self) -> dict:
        import os
        import subprocess
        from pathlib import Path

        import helper

        data = Path(os.environ["FAL_DATA_DIR"])
        (data / "made").write_text("by the app")
        return {
            "asset": Path("assets/words.txt").read_text(),
            "tool": subprocess.run(["./tool.sh"], capture_output=True, text=True).stdout,
            "helper": helper.WORD,
            "uploaded": (data / "up" / "words.txt").read_text(),
        }

    @fal.endpoint("/file")
    def file(self) -> File:
        return File.from_bytes(b"made by an app", file_name="made.txt")

    @fal.endpoint("/by-rest")
    def by_rest(self) -> File:
        return File.from_bytes(b"made by an app", file_name="made.txt", repository="fal")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "words.txt").write_text("some words")
    (tmp_path / "tool.sh").write_text("#!/bin/sh\nprintf ran\n")
    (tmp_path / "tool.sh").chmod(0o755)
    (tmp_path / "helper.py").write_text("WORD = 'helped'\n")
    (tmp_path / "filing.py").write_text(APP)
    return tmp_path


def test_files_by_command(controller: Controller, tmp_path: Path) -> None:
    large = os.urandom(21 * 1024 * 1024)
    (tmp_path / "large.bin").write_bytes(large)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "x.txt").write_text("x")
    assert controller.fal("files", "ls").stdout == "data\n"
    controller.fal("files", "upload", str(tmp_path / "large.bin"), "cmd/")
    controller.fal("files", "upload", str(tmp_path / "tree"), "/data/cmd/tree")
    assert controller.fal("files", "list", "cmd").stdout == "large.bin\ntree\n"
    controller.fal("files", "mv", "cmd/large.bin", "/data/cmd/moved.bin")
    controller.fal("files", "download", "/data/cmd", str(tmp_path / "back"))
    assert (tmp_path / "back" / "moved.bin").read_bytes() == large
    assert (tmp_path / "back" / "tree" / "deep" / "x.txt").read_text() == "x"
    controller.fal("files", "rm", "cmd")
    gone = controller.fal("files", "ls", "cmd", check=False)
    assert (gone.returncode, "/data/cmd not found" in gone.stderr) == (1, True)
    refused = controller.fal("files", "upload-url", "http://10.0.0.1/health", "h", check=False)
    assert (refused.returncode, "upload the file instead" in refused.stderr) == (1, True)


def test_a_path_with_parent_directories_is_refused(controller: Controller, tmp_path: Path) -> None:
    local = tmp_path / "y"
    local.write_text("kept")
    controller.fal("files", "upload", str(local), "y")
    local.write_text("another")
    for arguments in (
        ("upload", str(local), "up/../y"),
        ("upload", str(local), "/data/.."),
        ("upload-url", "http://example.com/y", "up/../y"),
        ("download", "up/../y", str(local)),
        ("list", "up/.."),
        ("mv", "y", "../z"),
        ("mv", "up/../y", "z"),
        ("rm", "--yes", "up/../y"),
    ):
        refused = controller.fal("files", *arguments, check=False)
        assert (refused.returncode, "`..` in it" in refused.stderr) == (2, True), arguments
    controller.fal("files", "download", "y", str(local))
    assert local.read_text() == "kept"


def test_an_app_has_its_files_and_the_accounts_and_makes_some(controller: Controller, project: Path) -> None:
    controller.fal("files", "upload", str(project / "assets" / "words.txt"), "up/words.txt")
    controller.fal("deploy", str(project / "filing.py"), "--auth", "public")
    answer = controller.call("/local/filing/", {})
    assert answer.json() == {"asset": "some words", "tool": "ran", "helper": "helped", "uploaded": "some words"}
    assert (controller.state_dir / "data" / "made").read_text() == "by the app"

    listed = json.loads(controller.fal("runners", "list", "--json").stdout)["runners"]
    runner_id = next(runner["runner_id"] for runner in listed if runner["alias"] == "filing")
    ran = controller.fal(
        "runners", "exec", runner_id, "--", "sh", "-c", 'cat "$FAL_DATA_DIR/made" "$FAL_APP_DIR/tool.sh"'
    )
    assert ran.stdout == "by the app#!/bin/sh\nprintf ran\n"

    made = controller.call("/local/filing/file", {}).json()
    assert isinstance(made, dict)
    assert (made["file_name"], made["file_size"], made["content_type"]) == ("made.txt", 14, "text/plain")
    with urllib.request.urlopen(made["url"]) as file:
        assert file.read() == b"made by an app"
    # What a runner falls back to is this controller as well: nobody else gets the runner's key.
    stored = controller.call("/local/filing/by-rest", {}, key=controller.key)
    assert (stored.status, stored.json()["url"].split("/")[2]) == (200, controller.host)
    controller.fal("apps", "delete", "filing")


def test_tls_from_the_command_line_to_the_runner(tmp_path: Path, project: Path) -> None:
    with running(tmp_path / "state", "--tls", "--tls-name", "box.example") as controller:
        environment = {**controller.environment, "FAL_GRPC_HOST": "", "FAL_KEY": ""}

        def fal(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
            command = [str(BIN / "fal"), *arguments]
            return subprocess.run(
                command, env={**environment, **more}, capture_output=True, text=True, check=False, timeout=180
            )

        exports = dict(
            line.removeprefix("export ").split("=", 1) for line in fal("env").stdout.replace("'", "").splitlines()
        )
        assert exports["FAL_GRPC_HOST"] == f"localhost:{controller.port}"
        assert "ISOLATE_TEST_MODE" not in exports
        assert fal("files", "ls", **exports).stdout == "data\n"
        untrusting = {name: value for name, value in exports.items() if "SSL" not in name}
        assert fal("keys", "list", **untrusting).returncode == 1

        ca = controller.state_dir / "tls" / "ca.pem"
        Path(environment["FAL_CONFIG_PATH"]).write_text(
            f'[mine]\nhost = "https://localhost:{controller.port}"\nkey = "{controller.key}"\nca_file = "{ca}"\n'
        )
        listed = fal("keys", "list", FAL_PROFILE="mine")
        assert (listed.returncode, "ADMIN" in listed.stdout) == (0, True), listed.stderr
        status = fal("status", "--json", FAL_STATE_DIR=str(controller.state_dir), **exports)
        assert json.loads(status.stdout)["url"] == f"https://localhost:{controller.port}"

        trusting = ssl.create_default_context(cafile=str(ca))
        with urllib.request.urlopen(f"https://localhost:{controller.port}/health", context=trusting) as answer:
            assert json.load(answer)["status"] == "ok"

        deployed = fal("deploy", str(project / "filing.py"), "--auth", "public", **exports)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        request = urllib.request.Request(
            f"https://localhost:{controller.port}/local/filing/file",
            data=b"{}",
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, context=trusting) as answer:
            url = json.load(answer)["url"]
        assert url.startswith("https://")
        with urllib.request.urlopen(url, context=trusting) as file:
            assert file.read() == b"made by an app"


def test_an_own_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("none")
    command = [
        sys.executable,
        "-m",
        "fal_server",
        "--state-dir",
        str(tmp_path / "s"),
        "--tls-cert",
        str(tmp_path / "own.pem"),
    ]
    key = ["--tls-key", str(tmp_path / "own.pem")]
    for more, code, words in (([], 2, "belong together"), (key, 1, "holds no certificate")):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
