"""Run a tour from nothing. It deploys, calls, lists, enters and stops an app, and then cleans up."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAL = ROOT / ".venv" / "bin" / "fal"
STATES = ("running", "idle")


class Demo:
    """A run that shows each command before running it; each must succeed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ISOLATE_"))}
        self.environment = {
            **kept,
            "HOME": str(folder),
            "FAL_CONFIG_PATH": str(folder / "config.toml"),
            "FAL_STATE_DIR": str(self.state_dir),
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(ROOT / ".cache" / "uv")),
        }

    def fal(self, *arguments: str, show: bool = True) -> str:
        """Run `fal`, show the command and its output; return the output."""
        if show:
            print(f"\n$ fal {shlex.join(arguments)}", flush=True)
        done = subprocess.run([FAL, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=False)
        if show:
            print(done.stdout, end="", flush=True)
        if done.returncode != 0:
            raise SystemExit(f"demo: `fal {shlex.join(arguments)}` failed with exit code {done.returncode}")
        return done.stdout

    def call(self, url: str, body: dict[str, object]) -> str:
        """POST JSON to an app, like curl; return the answer."""
        text = json.dumps(body)
        print(f"\n$ curl -s {url} -H 'Content-Type: application/json' -d '{text}'", flush=True)
        request = urllib.request.Request(url, text.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = response.read().decode()
        print(answer)
        return answer

    def serving(self, app: str) -> list[dict[str, object]]:
        """Return the runners of an app that can take requests."""
        listed = json.loads(self.fal("runners", "list", "--json", show=False))["runners"]
        return [runner for runner in listed if runner["alias"] == app and runner["state"].lower() in STATES]

    def main_job(self) -> None:
        """Run the steps."""
        self.fal("up", "--detach", "--port", "0")
        self.fal("deploy", str(ROOT / "examples" / "hello.py"), "--auth", "public")
        url = json.loads(self.fal("status", "--json", show=False))["url"]
        answer = self.call(f"{url}/local/hello", {"name": "world"})
        assert "world" in answer, answer

        self.fal("runners", "list")
        (runner,) = self.serving("hello")
        runner_id = str(runner["runner_id"])
        self.fal("runners", "logs", runner_id)
        self.fal(
            "runners", "exec", runner_id, "--", "python", "-c", "import os; print('inside', os.environ['FAL_APP_NAME'])"
        )
        self.fal("secrets", "set", "GREETING=hi")
        self.fal("secrets", "list")

        self.fal("runners", "stop", runner_id)
        self.call(f"{url}/local/hello", {"name": "again"})
        (second,) = [r for r in self.serving("hello") if r["runner_id"] != runner_id]
        print("\nA request started another runner. Now kill this one.")
        self.fal("runners", "kill", str(second["runner_id"]))
        self.fal("runners", "list", "--since", "5m", "--state", "terminated")
        self.fal("apps", "list")
        self.fal("apps", "delete", "hello", "--yes")


def main() -> int:
    """Run the demo in a temporary folder; leave nothing behind."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fal-demo-") as name:
        demo = Demo(Path(name))
        try:
            demo.main_job()
        finally:
            if (demo.state_dir / "controller.json").exists():
                demo.fal("down")
    print(f"\nDone in {time.monotonic() - started:.0f} s. Nothing is left running; the demo's folder is gone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
