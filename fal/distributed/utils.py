"""Serializes data between processes of one runner, and starts them."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType

_TENSOR = "application/tensor"
_ARRAY = "application/ndarray"
_PREVIEW_QUALITY = 60
_FINAL_QUALITY = 95


def has_type_name(maybe_type: object, type_name: str) -> bool:
    """Return whether an object's class or a base class has this name. Its package is not imported."""
    kind = maybe_type if isinstance(maybe_type, type) else type(maybe_type)
    return any(base.__name__ == type_name for base in kind.__mro__)


def is_torch_tensor(obj: object) -> bool:
    """Return whether it is a PyTorch tensor."""
    return has_type_name(obj, "Tensor")


def is_numpy_array(obj: object) -> bool:
    """Return whether it is a NumPy array."""
    return has_type_name(obj, "ndarray")


def is_pil_image(obj: object) -> bool:
    """Return whether it is a Pillow image."""
    return has_type_name(obj, "Image")


def format_for_serialization(
    response: object, image_format: str = "jpeg", is_final: bool = False, as_data_urls: bool = False
) -> object:
    """Return data whose tensors, arrays and images are replaced by self-describing objects.

    Args:
        response: the data.
        image_format: of images; those before the final result are small JPEGs regardless.
        is_final: whether this is the last of several results.
        as_data_urls: put contents into data: URLs, for JSON, rather than as bytes.
    """
    if isinstance(response, dict):
        return {
            key: format_for_serialization(value, image_format, is_final, as_data_urls)
            for key, value in response.items()
        }
    if isinstance(response, list):
        return [format_for_serialization(value, image_format, is_final, as_data_urls) for value in response]
    with io.BytesIO() as file:
        about = _written(response, file, image_format, is_final=is_final)
        content = file.getvalue()
    if about is None:
        return response
    kind = about["content_type"]
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}" if as_data_urls else None
    return {**about, "data": None if as_data_urls else content, "url": url}


def _written(value: object, file: io.BytesIO, image_format: str, *, is_final: bool) -> dict[str, object] | None:
    """Write a tensor, array or image, and return its description. None for any other value."""
    if is_torch_tensor(value):
        import_module("torch").save(value.detach().cpu(), file)  # type: ignore[attr-defined]  # of PyTorch
        return {"content_type": _TENSOR, **_shape(value)}
    if is_numpy_array(value):
        import_module("numpy").save(file, value, allow_pickle=False)
        return {"content_type": _ARRAY, **_shape(value)}
    if not is_pil_image(value):
        return None
    chosen = image_format if is_final else "jpeg"
    quality = {"quality": _FINAL_QUALITY if is_final else _PREVIEW_QUALITY} if chosen == "jpeg" else {}
    value.save(file, format=chosen, **quality)  # type: ignore[attr-defined]  # of Pillow
    width, height = value.size  # type: ignore[attr-defined]  # as above
    return {"content_type": f"image/{chosen}", "width": width, "height": height}


def _shape(value: object) -> dict[str, object]:
    return {"shape": value.shape, "dtype": str(value.dtype)}  # type: ignore[attr-defined]  # a tensor or an array


def format_deserialized_data(data: object) -> object:
    """Return data with the tensors, arrays and images that `format_for_serialization` replaced.

    Raises:
        ValueError: one has no content.
    """
    if isinstance(data, list):
        return [format_deserialized_data(item) for item in data]
    if not isinstance(data, dict):
        return data
    kind = data.get("content_type")
    if not isinstance(kind, str) or not (kind.startswith("image/") or kind in (_TENSOR, _ARRAY)):
        return {key: format_deserialized_data(value) for key, value in data.items()}
    content, url = data.get("data"), data.get("url")
    if isinstance(url, str) and url:
        content = base64.b64decode(url.partition(",")[2])
    if not isinstance(content, bytes):
        raise ValueError(f"an object of the type {kind} has neither data nor a url")
    file = io.BytesIO(content)
    if kind == _TENSOR:
        return import_module("torch").load(file, weights_only=True)  # never unpickle a caller's content
    if kind == _ARRAY:
        return import_module("numpy").load(file, allow_pickle=False)
    return import_module("PIL.Image").open(file)


def distributed_serialize(obj: object, is_final: bool = False, image_format: str = "jpeg") -> bytes:
    """Return data as bytes for another process of this runner."""
    return pickle.dumps(format_for_serialization(obj, image_format, is_final), protocol=pickle.HIGHEST_PROTOCOL)


def distributed_deserialize(serialized: bytes | str) -> object:
    """Return the data that another process of this runner sent. Text is parsed as JSON."""
    if isinstance(serialized, str):
        return format_deserialized_data(json.loads(serialized))
    return format_deserialized_data(pickle.loads(serialized))  # noqa: S301 - of this runner's own process


def encode_text_event(obj: object, is_final: bool = False, image_format: str = "jpeg") -> bytes:
    """Return data as an event of a text/event-stream."""
    formatted = format_for_serialization(obj, image_format, is_final, as_data_urls=True)
    return f"data: {json.dumps(formatted)}\n\n".encode()


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Processes that were started together, in the order of their ranks."""

    processes: list[SpawnProcess]

    def join(self, timeout: float | None = None) -> bool:
        """Wait for all processes; return whether all succeeded.

        Raises:
            RuntimeError: one failed; the others are terminated.
        """
        for rank, process in enumerate(self.processes):
            process.join(timeout)
            if process.exitcode:
                for other in self.processes:
                    other.terminate()
                raise RuntimeError(f"the process of rank {rank} ended with the exit code {process.exitcode}")
        return all(process.exitcode == 0 for process in self.processes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rendezvous of a process group; `timeout` is in seconds."""

    world_size: int
    master_addr: str
    master_port: int
    timeout: int
    cwd: str | None


def launch_distributed_processes(
    func: Callable[..., object],
    world_size: int = 1,
    master_addr: str = "127.0.0.1",
    master_port: int = 29500,
    timeout: int = 1800,
    cwd: str | Path | None = None,
    *args: object,
    **kwargs: object,
) -> ProcessContext:
    """Call a function in several new processes. They form a PyTorch process group if it is installed.

    Each has RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The group uses NCCL if there are GPUs, otherwise
    Gloo. Without PyTorch there is no group, but everything else is the same.

    Args:
        func: the function; its rank is in RANK.
        world_size: how many processes.
        master_addr, master_port: the group's rendezvous.
        timeout: seconds that an operation of the group may take.
        cwd: the directory of the processes.
        args, kwargs: arguments of the function.
    """
    group = Group(
        world_size=world_size,
        master_addr=master_addr,
        master_port=master_port,
        timeout=timeout,
        cwd=None if cwd is None else str(cwd),
    )
    call = dumped((func, args, kwargs))
    return ProcessContext(start_processes(group, call_pickled, [(call,)] * world_size))


def start_processes(
    group: Group, target: Callable[..., object], arguments: Sequence[tuple[object, ...]]
) -> list[SpawnProcess]:
    """Start a process for each rank, with the arguments of its rank."""
    context = multiprocessing.get_context("spawn")  # a fork of a process that uses a GPU cannot use it
    processes = [
        context.Process(target=_in_group, args=(group, rank, target, given), name=f"fal-rank-{rank}", daemon=True)
        for rank, given in enumerate(arguments)
    ]
    for process in processes:
        process.start()
    return processes


def call_pickled(call: bytes) -> None:
    """Call the pickled function with its arguments."""
    function, args, kwargs = pickle.loads(call)  # noqa: S301 - of this runner's own process
    function(*args, **kwargs)


def dumped(value: object) -> bytes:
    """Pickle a value. With cloudpickle, it may be of a module that other processes cannot import."""
    try:
        pickler: ModuleType = import_module("cloudpickle")
    except ImportError:
        pickler = pickle
    found: bytes = pickler.dumps(value)
    return found


def _in_group(group: Group, rank: int, target: Callable[..., object], arguments: tuple[object, ...]) -> None:
    if group.cwd is not None:
        os.chdir(group.cwd)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(group.world_size),
        MASTER_ADDR=group.master_addr,
        MASTER_PORT=str(group.master_port),
    )
    with _joined(group, rank):
        target(*arguments)


@contextmanager
def _joined(group: Group, rank: int) -> Generator[None]:
    try:
        torch, dist = import_module("torch"), import_module("torch.distributed")
    except ImportError:
        yield
        return
    has_gpus = bool(torch.cuda.is_available())
    dist.init_process_group(
        backend="nccl" if has_gpus else "gloo",
        init_method="env://",
        world_size=group.world_size,
        rank=rank,
        timeout=timedelta(seconds=group.timeout),
        **({"device_id": torch.device(f"cuda:{rank}")} if has_gpus else {}),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


class KeepAliveTimer:
    """Calls a function after some seconds, in a thread.

    Args:
        func: the function.
        timeout: the seconds.
        start: begin at once.
        args, kwargs: arguments of the function.
    """

    def __init__(
        self, func: Callable[..., object], timeout: float, start: bool = False, *args: object, **kwargs: object
    ) -> None:
        self.func = func
        self.timeout = timeout
        self.args = args
        self.kwargs = kwargs
        self.timer: threading.Timer | None = None
        if start:
            self.start()

    def start(self) -> None:
        """Start the timer."""
        self.timer = threading.Timer(self.timeout, self.func, self.args, self.kwargs)
        self.timer.daemon = True
        self.timer.start()

    def cancel(self) -> None:
        """Cancel the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def reset(self) -> None:
        """Restart the timer."""
        self.cancel()
        self.start()
