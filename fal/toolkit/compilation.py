"""Keeps PyTorch Inductor's compiled kernels in /data. Later runners need not compile them again.

with synchronized_inductor_cache("my-model/1"):
    self.model = torch.compile(self.model)
    self.warm_up()
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from fal.toolkit.utils.download_utils import FAL_PERSISTENT_DIR

LOCAL_INDUCTOR_CACHE_DIR = Path("/tmp/inductor-cache")  # noqa: S108 - the published place; a runner's /tmp is its own
GLOBAL_INDUCTOR_CACHES_DIR = FAL_PERSISTENT_DIR / "inductor-caches"
PERSISTENT_TMP_DIR = FAL_PERSISTENT_DIR / "tmp"
_NAME = re.compile(r"NVIDIA ([a-zA-Z0-9]*)")
_UNKNOWN = "UNKNOWN"


def get_gpu_type() -> str:
    """Return the runner's GPU model, such as "H100"; "UNKNOWN" without one."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    except OSError:
        return _UNKNOWN
    found = _NAME.search(said)
    return found[1] if found else _UNKNOWN


def load_inductor_cache(cache_key: str) -> str:
    """Unpack the cache stored under a key, and let Inductor use it.

    Sets TORCHINDUCTOR_CACHE_DIR. A cache is valid for one GPU model; one stored without a model is used too.

    Args:
        cache_key: its name, such as "my-model/1".

    Returns:
        A hash for `sync_inductor_cache` to detect new entries; "" if there was no cache.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(LOCAL_INDUCTOR_CACHE_DIR)
    kept = _kept(cache_key)
    without_model = GLOBAL_INDUCTOR_CACHES_DIR / f"{cache_key}.zip"
    source = kept if kept.is_file() else without_model
    if not source.is_file():
        _say(f"there is no compilation cache {kept} yet")
        return ""
    try:
        LOCAL_INDUCTOR_CACHE_DIR.mkdir(parents=True, exist_ok=True)
        with ZipFile(source) as archive:
            archive.extractall(LOCAL_INDUCTOR_CACHE_DIR)
    except (OSError, BadZipFile) as error:
        _say(f"the compilation cache {source} cannot be unpacked, so models are compiled again: {error}")
        return ""
    _say(f"took the compilation cache {source}")
    return _names_hash(LOCAL_INDUCTOR_CACHE_DIR)


def sync_inductor_cache(cache_key: str, unpacked_dir_hash: str) -> None:
    """Store new compiled entries, if there are any.

    Args:
        cache_key: its name.
        unpacked_dir_hash: the result of `load_inductor_cache`.
    """
    if not LOCAL_INDUCTOR_CACHE_DIR.is_dir() or _names_hash(LOCAL_INDUCTOR_CACHE_DIR) == unpacked_dir_hash:
        _say("nothing new was compiled")
        return
    kept = _kept(cache_key)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        PERSISTENT_TMP_DIR.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PERSISTENT_TMP_DIR) as directory:
            made = shutil.make_archive(str(Path(directory, "cache")), "zip", LOCAL_INDUCTOR_CACHE_DIR)
            Path(made).replace(kept)  # atomically: other runners read it
    except OSError as error:
        _say(f"the compilation cache {kept} could not be kept: {error}")
        return
    _say(f"kept the compilation cache {kept}")


@contextmanager
def synchronized_inductor_cache(cache_key: str) -> Generator[None]:
    """Load a cache before the block, and store new entries after it. It stores them even if the block raises.

    Args:
        cache_key: its name, such as "my-model/1".
    """
    before = load_inductor_cache(cache_key)
    try:
        yield
    finally:
        sync_inductor_cache(cache_key, before)


def _kept(cache_key: str) -> Path:
    return GLOBAL_INDUCTOR_CACHES_DIR / get_gpu_type() / f"{cache_key}.zip"


def _names_hash(directory: Path) -> str:
    """Return a hash of all files' names: Inductor names them after their content."""
    names = sorted(str(path) for path in directory.rglob("*") if path.is_file())
    return hashlib.sha256("".join(names).encode()).hexdigest()


def _say(text: str) -> None:
    print(f"fal: {text}", flush=True)  # noqa: T201 - a line of the runner's log
