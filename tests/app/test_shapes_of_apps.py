"""App files that once worked differently in a runner than locally. Sent either way, they now give the right answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from fal.deploy.errors import AppFileError, SerializationError
from fal.deploy.preparation import prepare

SAMPLES = Path(__file__).parent / "samples"

ANSWERS: Mapping[str, tuple[str, object, object]] = {
    "class_keywords.py": ("/", {}, {"m": "3m"}),
    "dataclass_body.py": ("/", {"x": 1}, {"x": 1, "y": 0}),
    "enum_flags.py": ("/", {}, {"mid": 37, "rw": "RW"}),
    "enum_own_attributes.py": ("/", {}, {"prompt": "a photo of fox", "steps": 30}),
    "forked_child_sigterm.py": ("/kill", {}, {"exitcode": -15}),
    "future_type_checking.py": ("/", {"n": 2}, {"n": 2}),
    "late_hints.py": ("/", {}, {"total": 10}),
    "newtype.py": ("/", {"ticket": "t"}, {"ticket": "t!"}),
    "pydantic_root_union.py": ("/", {"steps": [{"op": "blur"}]}, {"ops": ["blur"]}),
}


@pytest.mark.parametrize("way", ["source", "value"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_app_answers_as_its_file_says(start, name, way):
    path, body, expected = ANSWERS[name]
    answer = start(SAMPLES / name, way=way).post(path, json=body)
    assert (answer.status_code, answer.json()) == (200, expected)


@pytest.mark.parametrize("way", ["source", "value"])
def test_a_pool_maps_a_function_of_the_app(start, way):
    assert start(SAMPLES / "forked_child_sigterm.py", way=way).post("/", json={}).json() == {"pool": [1, 4]}


@pytest.mark.parametrize("way", ["source", "value"])
def test_a_file_may_have_any_name(start, way):
    answer = start(SAMPLES / "v3.model-1.2.py", way=way).post("/", json={})
    assert answer.json() == {"f": "fal_app_v3_model_1_2"}


@pytest.mark.parametrize("way", ["source", "value"])
def test_local_modules_can_be_imported_late(start, monkeypatch, way):
    monkeypatch.chdir(SAMPLES / "local_module_lazy")
    answer = start(SAMPLES / "local_module_lazy" / "app.py", way=way).post("/", json={})
    assert answer.json() == {"v": "mypkg.b", "k": True, "import": "mypkg.b", "lazy": "mypkg.b"}


@pytest.mark.parametrize("way", ["source", "value"])
def test_the_environment_is_the_runners(start, monkeypatch, way):
    monkeypatch.setenv("DEPLOYER_ONLY", "private-thing")
    answer = start(SAMPLES / "env_captured.py", way=way, environment={"BUG_SECRET": "hush"}).post("/", json={}).json()
    assert (answer["from_import"], answer["os_module"], answer["leak"]) == ("hush", "hush", None)
    assert answer["n"] == answer["n_os"]


@pytest.mark.parametrize("way", ["source", "value"])
def test_logging_is_configured_as_the_file_says(start, way, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, with which basicConfig does nothing
    app = start(SAMPLES / "logging_at_top.py", way=way)
    assert app.post("/", json={}).json() == {"level": 10, "root": 20}
    for line in ("one from setup", "two from endpoint", "three", "four"):
        app.wait_for(f"MYFMT line {line}")


def test_what_cannot_be_pickled_is_named_and_travels_as_a_module(start):
    app = prepare(str(SAMPLES / "unpicklable_unnamed.py"))
    assert app.function is not None
    with pytest.raises(SerializationError, match=r"client \(unpicklable_unnamed\.py, line 4, a httpx\.Client\)"):
        app.function.pickle()


def test_two_endpoints_at_one_path_are_refused():
    with pytest.raises(AppFileError, match=r"/a is served by both one and two"):
        prepare(str(SAMPLES / "duplicate_paths.py"))
