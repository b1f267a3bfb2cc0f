"""Helpers of runners and calls. They are compile caches, retries, ONNX Runtime's threads and cancelled callers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request

from fal.toolkit import kv
from fal.toolkit.utils.endpoint import cancel_on_disconnect
from fal.toolkit.utils.retry import retry

SMI = """#!/bin/sh
echo 'NVIDIA H100 80GB HBM3'
"""

CACHED = """
import sys, shutil
from pathlib import Path
import fal.toolkit.compilation as c
c.LOCAL_INDUCTOR_CACHE_DIR = Path(sys.argv[1])
compiled = sys.argv[2]
print(c.get_gpu_type())
try:
    with c.synchronized_inductor_cache("my/1"):
        print(sorted(path.name for path in c.LOCAL_INDUCTOR_CACHE_DIR.glob("*")))
        c.LOCAL_INDUCTOR_CACHE_DIR.mkdir(exist_ok=True)
        if compiled:
            (c.LOCAL_INDUCTOR_CACHE_DIR / compiled).write_text(compiled)
        raise RuntimeError("raised within")
except RuntimeError:
    pass
"""


def test_what_one_runner_compiled_the_next_one_has(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(SMI)
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    data = tmp_path / "data"

    def runner(name: str, compiled: str, *, gpu: bool = True) -> list[str]:
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}" if gpu else str(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", CACHED, tmp_path / name, compiled],
            env={**os.environ, "PATH": path, "FAL_DATA_DIR": str(data)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    kept = data / "inductor-caches" / "H100" / "my" / "1.zip"
    first = runner("one", "kernel-a")
    assert (first[0], first[2], first[-1]) == ("H100", "[]", f"fal: kept the compilation cache {kept}")
    assert runner("two", "kernel-b")[2] == "['kernel-a']"
    before = kept.stat().st_mtime_ns
    assert runner("three", "")[2:] == ["['kernel-a', 'kernel-b']", "fal: nothing new was compiled"]
    assert kept.stat().st_mtime_ns == before
    without = runner("four", "kernel-c", gpu=False)
    assert (without[0], without[2]) == ("UNKNOWN", "[]")
    kept.write_text("no archive")
    assert "cannot be unpacked" in runner("five", "")[1]


ONNX = """
import os
from fal.toolkit.utils import patch_onnx_runtime
patch_onnx_runtime(2, 3, 4)
import onnxruntime
found = onnxruntime.capi._pybind_state.get_default_session_options()
print([found.inter_op_num_threads, found.intra_op_num_threads, os.environ["OMP_NUM_THREADS"]])
"""


def test_onnx_runtime_starts_so_many_threads(tmp_path: Path) -> None:
    state = tmp_path / "onnxruntime" / "capi" / "_pybind_state.py"
    state.parent.mkdir(parents=True)
    state.write_text("class Options: pass\none = Options()\ndef get_default_session_options(): return one\n")
    (tmp_path / "onnxruntime" / "__init__.py").write_text("import onnxruntime.capi._pybind_state\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ONNX], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 3, '4']\n"
    environment["PYTHONPATH"] = ""
    done = subprocess.run([sys.executable, "-c", ONNX], env=environment, capture_output=True, text=True, check=False)
    assert "add onnxruntime to the app's requirements" in done.stderr


def test_a_call_may_be_repeated_without_end() -> None:
    calls = []

    @retry(max_retries=1100, base_delay=1e-9, max_delay=1e-9)
    def fails() -> None:
        calls.append(1)
        raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        fails()
    assert len(calls) == 1100


async def test_calls_are_repeated_until_they_succeed() -> None:
    calls: list[str] = []

    @retry(max_retries=3, base_delay=0)
    def plain(word: str) -> str:
        calls.append(word)
        if len(calls) < 3:
            raise OSError(word)
        return word

    assert plain("a") == "a"
    assert (calls, plain.__name__) == (["a"] * 3, "plain")
    calls.clear()

    @retry(max_retries=2, base_delay=0, backoff_type="fixed", jitter=True)
    async def awaited() -> None:
        calls.append("b")
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        await awaited()
    assert calls == ["b", "b"]
    calls.clear()

    @retry(max_retries=5, base_delay=0, should_retry=lambda error: not isinstance(error, KeyError))
    def picky() -> None:
        calls.append("c")
        raise KeyError("no use")

    with pytest.raises(KeyError):
        picky()
    assert calls == ["c"]


async def test_work_for_a_caller_who_left_is_stopped() -> None:
    api = FastAPI()
    seen: list[str] = []
    started = asyncio.Event()

    @api.post("/")
    async def draw(request: Request) -> dict[str, str]:
        await request.body()
        async with cancel_on_disconnect(request):
            started.set()
            if request.headers.get("x-long"):
                try:
                    await asyncio.Event().wait()
                finally:
                    seen.append("stopped")
        seen.append("after")
        return {"drawn": "yes"}

    async def call(*headers: tuple[bytes, bytes], leaves: bool) -> list[dict[str, object]]:
        answers: list[dict[str, object]] = []

        async def messages() -> AsyncIterator[dict[str, object]]:
            yield {"type": "http.request", "body": b"", "more_body": False}
            if leaves:
                await started.wait()
                yield {"type": "http.disconnect"}
            await asyncio.Event().wait()

        coming = messages()

        async def send(message: dict[str, object]) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": list(headers), "query_string": b""}
        await api(scope, coming.__anext__, send)  # type: ignore[arg-type]
        return answers

    (_, body) = await call(leaves=False)
    assert json.loads(str(body["body"], "utf-8")) == {"drawn": "yes"}  # type: ignore[call-overload]
    assert seen == ["after"]
    started.clear()
    seen.clear()
    await asyncio.wait_for(call((b"x-long", b"1"), leaves=True), 10)
    assert seen == ["stopped", "after"]


def test_a_key_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "FAL_PERSISTENT_DIR", tmp_path)
    store = kv.KVStore("a")
    store.set("key", "one")
    store.set("other", "two")
    store.delete("key")
    store.delete("key")
    assert (store.get("key"), store.get("other")) == (None, "two")
    (tmp_path / ".fal").rename(tmp_path / "elsewhere")
    (tmp_path / ".fal").write_text("no directory")
    with pytest.raises(kv.KVStoreException, match="cannot be deleted"):
        store.delete("other")
