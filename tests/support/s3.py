"""A server that speaks S3, as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import httpx

SECRET = "wJalrXUtnFEMI-not-a-key"
_LISTENS = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A server that speaks S3; `environment` has what its clients need."""

    process: subprocess.Popen[str]
    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def bucket(self) -> str:
        """Create a bucket; return its name."""
        name = f"fal-{uuid.uuid4().hex[:12]}"
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()
        return name


@contextmanager
def s3_server(**settings: str) -> Iterator[S3Server]:
    """Run a server.

    Args:
        settings: environment variables of the server.
    """
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **settings}
    )
    assert process.stderr is not None
    port = next((found[1] for line in process.stderr if (found := _LISTENS.search(line))), None)
    reader = Thread(target=process.stderr.read)
    reader.start()
    try:
        assert port is not None
        yield S3Server(process=process, endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
