"""Apps that an import path finds, with this project installed beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CODE = """
import fal


class Sample(fal.App):
    @fal.endpoint("/")
    def run(self) -> str:
        return "ok"


@fal.function(serve=True)
def served() -> str:
    return "served"


@fal.function()
def plain(n: int = 1) -> int:
    return n + 1
"""


def python(place: Path, script: str) -> str:
    (place / "mod.py").write_text(CODE)
    (place / "script.py").write_text(script)
    ran = subprocess.run([sys.executable, place / "script.py"], cwd=place, capture_output=True, text=True, check=True)
    return ran.stdout


def test_build_metadata_describes_the_app(tmp_path):
    described = json.loads(
        python(
            tmp_path, "import json, mod; print(json.dumps([mod.Sample.build_metadata(), mod.served.build_metadata()]))"
        )
    )
    assert [[*metadata["openapi"]["paths"]] for metadata in described] == [["/", "/health"], ["/"]]


def test_run_local_serves_until_it_is_told_to_stop(tmp_path):
    script = """
import asyncio, os, signal, sys, threading, urllib.request
import mod, uvicorn

started = uvicorn.Server.startup
async def startup(self, sockets=None):
    await started(self, sockets)
    port = self.servers[0].sockets[0].getsockname()[1]
    threading.Thread(target=call, args=(port,)).start()
uvicorn.Server.startup = startup

def call(port):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=b"", method="POST")
    print(urllib.request.urlopen(request).read().decode())
    os.kill(os.getpid(), signal.SIGTERM)

os.environ["FAL_RUNNER_HOST"] = "127.0.0.1"
mod.Sample.run_local(exposed_port=0, exposed_metrics_port=0)
mod.served.run_local(exposed_port=0, exposed_metrics_port=0)

async def within_a_loop():
    await mod.Sample.run_local(exposed_port=0, exposed_metrics_port=0)

asyncio.run(within_a_loop())
print(mod.plain.run_local(2), mod.plain.func(4), os.environ.get("IS_ISOLATE_AGENT"))
"""
    lines = [
        line for line in python(tmp_path, script).splitlines() if not line.startswith("INFO") and "HTTP/1.1" not in line
    ]
    assert lines == ['"ok"', '"served"', '"ok"', "3 5 None"]
