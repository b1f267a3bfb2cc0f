"""A model over several processes: requests, streams, failures, and the process group. PyTorch has a stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import signal
import sys
from pathlib import Path

import PIL.Image
import pytest

from fal.distributed import DistributedRunner, DistributedWorker
from fal.distributed.utils import (
    KeepAliveTimer,
    distributed_deserialize,
    distributed_serialize,
    encode_text_event,
    launch_distributed_processes,
)


class Adder(DistributedWorker):
    """Returns what it was given; fails, ends or draws on request."""

    async def setup(self, base: int = 0, fails: int = -1) -> None:
        self.base = base
        if self.rank == fails:
            raise ValueError("no weights")

    def __call__(self, streaming: bool = False, number: int = 0, **more: object) -> object:
        if more.get("raises"):
            raise KeyError("asked for it")
        if more.get("ends") == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        if streaming:
            for step in range(3):
                self.add_streaming_result({"step": step}, as_text_event=bool(more.get("as_text")))
        image = PIL.Image.new("RGB", (2, 3)) if more.get("image_format") else None
        return {"sum": self.base + number, "rank": self.rank, "of": os.environ["WORLD_SIZE"], "image": image}

    def teardown(self) -> None:
        Path(f"ended-{self.rank}").touch()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_each_process_works_and_rank_0_answers(tmp_path: Path) -> None:
    runner = DistributedRunner(Adder, world_size=2, cwd=tmp_path)
    await runner.start(base=10)
    assert runner.is_alive()
    with pytest.raises(RuntimeError, match="run already"):
        await runner.start()
    answers = await asyncio.gather(*(runner.invoke({"number": number}) for number in range(3)))
    assert answers == [{"sum": 10 + number, "rank": 0, "of": "2", "image": None} for number in range(3)]
    streamed = [result async for result in runner.stream({"number": 5})]
    assert [result.get("step") for result in streamed if isinstance(result, dict)] == [0, 1, 2, None]
    drawn = await runner.invoke({"image_format": "png"})
    assert isinstance(drawn, dict)
    assert (drawn["image"].size, drawn["image"].format) == ((2, 3), "PNG")
    events = [event async for event in runner.stream({"as_text": True}, as_text_events=True)]
    assert all(isinstance(event, bytes) and event.startswith(b"data: {") for event in events)
    assert json.loads(bytes(events[-1])[6:])["sum"] == 10  # type: ignore[arg-type]
    assert await runner.invoke({"raises": True}) == {"error": "'asked for it'"}
    await runner.stop()
    assert names_in(tmp_path) == ["ended-0", "ended-1"]
    assert not runner.is_alive()
    with pytest.raises(RuntimeError, match="do not run"):
        await runner.invoke()


async def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    runner = DistributedRunner(Adder, world_size=2, cwd=tmp_path)
    with pytest.raises(RuntimeError, match="could not start: rank 1: ValueError: no weights"):
        await runner.start(fails=1)
    assert not runner.is_alive()
    async with runner:
        with pytest.raises(RuntimeError, match="ended while it worked: rank 1 ended with the exit code -9"):
            await runner.invoke({"ends": 1})
        with pytest.raises(RuntimeError, match="rank 1 ended"):
            runner.ensure_alive()
    assert runner.gather_errors() == []


class Counter(DistributedWorker):
    def __call__(self, streaming: bool = False, **more: object) -> object:
        with Path("asked").open("a") as file:
            file.write("x")
        os.mkfifo("waits") if more.get("waits") else None
        return Path("waits").read_text() if more.get("waits") else len(Path("asked").read_text())


async def test_an_answer_that_takes_too_long_is_dropped_and_a_quiet_runner_is_kept_alive(tmp_path: Path) -> None:
    runner = DistributedRunner(Counter, cwd=tmp_path, keepalive_interval=0.05)
    async with runner:
        with pytest.raises(TimeoutError):
            await runner.invoke({"waits": True}, timeout=0.5)
        await asyncio.to_thread((tmp_path / "waits").write_text, "too late")
        first = await runner.invoke()
        assert isinstance(first, int)
        while len((tmp_path / "asked").read_text()) < first + 3:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0)


TORCH = {
    "torch/__init__.py": """
class cuda:
    is_available = staticmethod(lambda: False)
def device(name): return f"device {name}"
""",
    "torch/distributed.py": """
import json, os
from pathlib import Path
def init_process_group(**about):
    about["timeout"] = about["timeout"].total_seconds()
    Path(f"group-{about['rank']}").write_text(json.dumps(about))
def destroy_process_group():
    Path(f"left-{os.environ['RANK']}").touch()
""",
}


class OnDevice(DistributedWorker):
    def __call__(self, streaming: bool = False, **more: object) -> object:
        return self.device


async def test_processes_form_a_group_where_pytorch_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in TORCH.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    async with DistributedRunner(OnDevice, world_size=2, master_port=29501, timeout=60, cwd=tmp_path) as runner:
        assert await runner.invoke() == "device cpu"
    assert [json.loads((tmp_path / f"group-{rank}").read_text()) for rank in range(2)] == [
        {"backend": "gloo", "init_method": "env://", "world_size": 2, "rank": rank, "timeout": 60.0}
        for rank in range(2)
    ]
    assert (tmp_path / "left-0").exists()
    assert (tmp_path / "left-1").exists()


def say_rank(word: str, *, ends: int = 0) -> None:
    Path(f"{word}-{os.environ['RANK']}").touch()
    raise SystemExit(ends)


def test_a_plain_function_in_several_processes(tmp_path: Path) -> None:
    done = launch_distributed_processes(say_rank, 2, "127.0.0.1", 29502, 60, tmp_path, "here")
    assert done.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here-0", "here-1"]
    with pytest.raises(RuntimeError, match="rank 0 ended with the exit code 3"):
        launch_distributed_processes(say_rank, 1, cwd=tmp_path, word="there", ends=3).join()


def test_data_between_processes() -> None:
    image = PIL.Image.new("RGB", (4, 4))
    data = {"images": [image], "content_type": "text/plain", "n": 1}
    back = distributed_deserialize(distributed_serialize(data))
    assert isinstance(back, dict)
    assert (back["images"][0].format, back["n"]) == ("JPEG", 1)
    event = encode_text_event(data, is_final=True, image_format="png").decode()
    assert '"url": "data:image/png;base64,' in event
    assert isinstance(distributed_deserialize(event[6:]), dict)
    with pytest.raises(ValueError, match="neither data nor a url"):
        distributed_deserialize(json.dumps({"content_type": "image/png"}))


def test_a_timer_counts_from_the_beginning_again() -> None:
    called: list[object] = []
    timer = KeepAliveTimer(called.append, 60, False, "x")
    timer.reset()
    first = timer.timer
    timer.reset()
    assert timer.timer is not first
    timer.cancel()
    assert (timer.timer, called) == (None, [])


# Like the real ones, which without these arguments unpickle their input and so run code in it.
READERS = {
    "torch.py": "import pickle\ndef load(file, weights_only=False):\n"
    "    return 'safe' if weights_only else pickle.load(file)\n",
    "numpy.py": "import pickle\ndef load(file, allow_pickle=False):\n"
    "    return pickle.load(file) if allow_pickle else 'safe'\n",
}


class Intruder:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os._exit, (3,)


@pytest.mark.parametrize("kind", ["application/tensor", "application/ndarray"])
def test_what_a_caller_sent_is_never_unpickled(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in READERS.items():
        (tmp_path / name).write_text(source)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    url = f"data:{kind};base64,{base64.b64encode(pickle.dumps(Intruder())).decode()}"
    try:
        assert distributed_deserialize(json.dumps({"content_type": kind, "url": url})) == "safe"
    finally:
        for name in READERS:
            sys.modules.pop(name.removesuffix(".py"), None)
