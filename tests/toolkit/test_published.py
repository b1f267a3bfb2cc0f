"""Names of fal.toolkit that published apps import, besides files. They are stores, archives, models and form fields."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from base64 import b64encode
from pathlib import Path

import pytest

import fal.toolkit
from fal.deploy.preparation import prepare
from fal.toolkit import (
    AudioField,
    CompressedFile,
    DownloadError,
    FalBaseModel,
    FalTookitException,
    Field,
    FileField,
    FileUploadException,
    Hidden,
    ImageField,
    KVStore,
    KVStoreException,
    VideoField,
    kv,
)


def test_every_name_is_there_also_where_published_apps_look_for_it() -> None:
    for name in fal.toolkit.__all__:
        assert getattr(fal.toolkit, name) is not None
    paths = {
        "utils": ["FAL_MODEL_WEIGHTS_DIR", "FAL_PERSISTENT_DIR", "FAL_REPOSITORY_DIR", "clone_repository"],
        "file": ["CompressedFile", "File"],
        "image": ["Image", "ImageSizeInput", "get_image_size"],
        "kv": ["KVStore"],
        "pydantic": ["FalBaseModel", "Field", "Hidden", "ImageField"],
        "exceptions": ["FileUploadException", "KVStoreException"],
    }
    for module, names in paths.items():
        found = __import__(f"fal.toolkit.{module}", fromlist=names)
        assert all(hasattr(found, name) for name in names)
    assert issubclass(FileUploadException, FalTookitException)
    with pytest.raises(ImportError, match="optimize is not part"):
        exec("from fal.toolkit import optimize")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a /data for the test."""
    monkeypatch.setattr(kv, "FAL_PERSISTENT_DIR", tmp_path)
    return tmp_path


def test_a_store_keeps_texts_by_name_and_key(data: Path) -> None:
    store = KVStore("a")
    assert store.get("key") is None
    for key, value in [("key", "one"), ("key", "tw\r\no"), ("../../x", ""), ("k" * 5000, "z" * 100_000), ("", "é\n")]:
        store.set(key, value)
        assert KVStore("a").get(key) == value
        assert KVStore("b").get(key) is None
    assert not (data / "x").exists()
    assert [path.name for path in (data / ".fal" / "kv").iterdir()] == [store._directory.name]


@pytest.mark.parametrize("step", [-10 * 365 * 86_400, -3600, 3600, 10 * 365 * 86_400])
def test_a_step_of_the_wall_clock_moves_no_ttl(data: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    store = KVStore("a")
    store.set("before", "x", ttl=600)
    wall, since_boot = time.time, time.clock_gettime
    monkeypatch.setattr(kv.time, "time", lambda: wall() + step)
    store.set("after", "y", ttl=600)
    KVStore("a").set("other", "z")  # sweeps
    assert (store.get("before"), store.get("after")) == ("x", "y")
    monkeypatch.setattr(kv.time, "clock_gettime", lambda clock: since_boot(clock) + 601)
    assert (store.get("before"), store.get("after")) == (None, None)


def test_a_ttl_counts_on_a_desk_without_attributes_of_files(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv.sys, "platform", "darwin")
    monkeypatch.delattr(os, "getxattr")
    monkeypatch.delattr(os, "setxattr")
    monkeypatch.delattr(kv.time, "CLOCK_BOOTTIME")
    store = KVStore("desk")
    store.set("key", "x", ttl=600)
    assert store.get("key") == "x"
    wall = kv.time.time
    monkeypatch.setattr(kv.time, "time", lambda: wall() + 601)
    assert store.get("key") is None


@pytest.mark.parametrize(("step", "kept"), [(-10 * 365 * 86_400, True), (-3600, True), (300, True), (3600, False)])
def test_over_a_reboot_a_ttl_goes_on_and_is_never_longer(
    data: Path, monkeypatch: pytest.MonkeyPatch, step: int, kept: bool
) -> None:
    store = KVStore("a")
    store.set("key", "x", ttl=600)
    wall = time.time
    monkeypatch.setattr(kv, "_boot", lambda: "another")
    monkeypatch.setattr(kv.time, "time", lambda: wall() + step)
    assert store.get("key") == ("x" if kept else None)
    since_boot = time.clock_gettime
    monkeypatch.setattr(kv.time, "clock_gettime", lambda clock: since_boot(clock) + 601)
    assert store.get("key") is None


def test_what_has_expired_is_gone_and_swept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KVStore("a")
    store.set("short", "x", ttl=60)
    path = store._path("short")
    assert store.get("short") == "x"
    os.utime(path, (0, 0))
    assert store.get("short") == "x", "the wall clock alone ends nothing within a boot"
    since_boot = time.clock_gettime
    with monkeypatch.context() as later:
        later.setattr(kv.time, "clock_gettime", lambda clock: since_boot(clock) + 61)
        assert store.get("short") is None
    os.removexattr(path, "user.fal.kept")
    assert store.get("short") is None, "an earlier version's value has its file's time alone"
    (path.parent / ".draft-left").touch()
    os.utime(path.parent / ".draft-left", (0, 0))
    KVStore("a").set("other", "y")
    assert sorted(found.name for found in path.parent.iterdir()) == [".lock", store._path("other").name]


def test_what_a_store_refuses(data: Path) -> None:
    store = KVStore("a")
    with pytest.raises(TypeError, match=r"json\.dumps"):
        store.set("key", 1)  # type: ignore[arg-type]
    for ttl in (59, 2_592_001):
        with pytest.raises(ValueError, match="ttl"):
            store.set("key", "x", ttl=ttl)
    with pytest.raises(ValueError, match="db_name"):
        KVStore("")
    (data / ".fal").write_text("no directory")
    with pytest.raises(KVStoreException, match="cannot be written"):
        store.set("key", "x")


def test_readers_and_writers_at_once_see_whole_values(data: Path) -> None:
    values = {letter * 200_000 for letter in "abc"}
    KVStore("a").set("key", "a" * 200_000)
    read: list[str | None] = []
    writers = [
        threading.Thread(target=lambda value=value: [KVStore("a").set("key", value) for _ in range(20)])
        for value in values
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        read.append(KVStore("a").get("key"))
    for writer in writers:
        writer.join()
    assert set(read) <= values


def archive(*names: str) -> CompressedFile:
    with io.BytesIO() as made:
        with zipfile.ZipFile(made, "w") as opened:
            for name in names:
                opened.writestr(name, name)
        return CompressedFile(url=f"data:application/zip;base64,{b64encode(made.getvalue()).decode()}")


def test_an_archive_is_unpacked_once_and_goes_with_its_object() -> None:
    found = archive("one.txt", "in/two.txt", "../../up.txt")
    assert sorted(path.name for path in found) == ["in", "one.txt", "up.txt"]
    (two,) = found.glob("in/*.txt")
    assert two.read_text() == "in/two.txt"
    (up,) = found.glob("**/up.txt")
    assert up.is_relative_to(two.parents[1])
    del found
    assert not two.exists()


def test_what_is_no_archive() -> None:
    with pytest.raises(DownloadError, match="not a ZIP archive"):
        list(CompressedFile(url="data:text/plain,hello"))


class Input(FalBaseModel):
    FIELD_ORDERS = ["prompt", "picture"]  # noqa: RUF012
    SCHEMA_IGNORES = {"old"}  # noqa: RUF012

    seed: int = 0
    old: int = 0
    picture: str = ImageField(description="A picture.", ui={"important": True})
    prompt: str = Field(description="What to draw.")
    debug: bool = Hidden(Field(default=False))


class Outer(FalBaseModel):
    inner: Input
    sound: str = AudioField(default="")
    film: str | None = VideoField(default=None, json_schema_extra={"examples": ["x"]})
    file: str = FileField(...)


def test_a_models_schema_has_order_and_hides() -> None:
    schema = Input.model_json_schema()
    assert list(schema["properties"]) == ["prompt", "picture", "seed", "old", "debug"]
    assert schema["properties"]["debug"]["ui"] == schema["properties"]["old"]["ui"] == {"hidden": True}
    assert schema["properties"]["picture"]["ui"] == {"field": "image", "important": True}
    assert "ui" not in schema["properties"]["seed"]
    outer = Outer.model_json_schema()
    assert next(iter(outer["$defs"]["Input"]["properties"])) == "prompt"
    fields = outer["properties"]
    assert [fields[name]["ui"]["field"] for name in ("sound", "film", "file")] == ["audio", "video", "file"]
    assert fields["film"]["examples"] == ["x"]
    assert outer["required"] == ["inner", "file"]
    made = Outer.model_validate({"inner": {"prompt": "p", "picture": "u", "debug": True}, "file": "f"})
    assert made.inner.debug


def test_what_cannot_be_hidden() -> None:
    with pytest.raises(ValueError, match="default"):
        Hidden(Field())
    with pytest.raises(TypeError, match="Field"):
        Hidden(3)


APP = """
import fal
from fal.toolkit import CompressedFile, FalBaseModel, Field, Hidden, KVStore

class Asked(FalBaseModel):
    word: str
    quiet: bool = Hidden(Field(default=True))

@fal.function()
def work():
    store = KVStore("travel")
    store.set("word", Asked(word="hello").word)
    return [store.get("word"), Asked.model_json_schema()["properties"]["quiet"]["ui"], CompressedFile.__name__]
"""


def test_they_travel_with_an_app(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    function = prepare(str(tmp_path / "app.py")).function
    assert function is not None
    definition = function.pickle()
    (tmp_path / "load.py").write_text(f"import json, pickle\nprint(json.dumps(pickle.loads({definition!r})()))\n")
    done = subprocess.run(
        [sys.executable, "-P", tmp_path / "load.py"],
        env={**os.environ, "FAL_DATA_DIR": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == '["hello", {"hidden": true}, "CompressedFile"]\n'
