"""Trials find the options that an engine needs, once. They report them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from fal_server.builders.engine_trials import EngineTrials
from fal_server.builders.probe_program import probe_program
from fal_server.core.faults import Unimplemented
from tests.support.containers import FakeEngine, make_engine


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return make_engine(tmp_path / "bin")


def trials(tmp_path: Path, variables: dict[str, str]) -> EngineTrials:
    tmp_path.mkdir(exist_ok=True)
    return EngineTrials(variables, tmp_path / "containers")


def add_runsc(tmp_path: Path) -> None:
    runsc = tmp_path / "bin" / "runsc"
    runsc.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    runsc.chmod(0o755)


async def test_an_engine_that_works_as_it_is_gets_no_options(tmp_path, engine):
    said: list[str] = []
    found = await trials(tmp_path, engine.variables()).find(said.append)
    assert (found.version, found.options.engine, found.options.run, found.options.build) == ("podman 9.9.9", (), (), ())
    assert said == ["Trying podman 9.9.9, once: how it builds and runs containers on this machine"]
    assert engine.tried[-1][:3] == ["image", "rm", "--force"]


async def test_what_a_machine_needs_is_found_and_remembered(tmp_path, engine):
    add_runsc(tmp_path)
    script = str(tmp_path / "containers" / "runsc")
    variables = engine.variables(CONTAINERS_NEED_BUILD="--isolation chroot", CONTAINERS_NEED_RUN=f"{script} --ulimit")
    finding = await trials(tmp_path, variables).look()
    assert finding.detail == (
        "podman 9.9.9 runs containers with runsc and --ulimit host, builds them with --isolation chroot --cap-drop "
        "SYS_CHROOT; memory limits are not enforced"
    )
    assert finding.engine is not None
    assert finding.engine.options.engine[:2] == ("--runtime", script)
    count = len(engine.tried)
    again = await trials(tmp_path, variables).find()
    assert again == finding.engine
    assert len(engine.tried) == count, "it was remembered"
    await trials(tmp_path, variables | {"STORAGE_DRIVER": "vfs"}).find()
    assert len(engine.tried) > count, "with other settings it is tried again"


async def test_an_ordinary_user_runs_containers_without_control_groups(tmp_path, engine):
    add_runsc(tmp_path)
    found = await trials(tmp_path, engine.variables(CONTAINERS_NEED_RUN="ignore-cgroups")).find()
    assert found.options.engine[-2:] == ("--runtime-flag", "ignore-cgroups")
    assert found.options.run == ()


async def test_limits_are_held_only_if_a_program_over_them_ends(tmp_path, engine):
    assert not (await trials(tmp_path / "a", engine.variables()).find()).options.limits
    assert (await trials(tmp_path / "b", engine.variables(CONTAINERS_LIMIT="1")).find()).options.limits


async def test_ports_that_cannot_be_published_are_said(tmp_path, engine):
    variables = engine.variables(CONTAINERS_NEED_RUN="--network")
    finding = await trials(tmp_path, variables).look()
    assert "images that run themselves (use_isolate=False) cannot" in finding.detail


async def test_if_nothing_works_the_engines_words_and_a_way_out_are_said(tmp_path, engine):
    variables = engine.variables(CONTAINERS_NEED_RUN="magic")
    with pytest.raises(Unimplemented, match="cannot run a container here") as fault:
        await trials(tmp_path, variables).find()
    assert "run refused: magic is missing" in fault.value.message
    assert "docker is not installed" in fault.value.message
    assert "Install runsc" in fault.value.message
    works = engine.variables()
    assert (await trials(tmp_path, works).find()).version, "a failure is not remembered"


def test_runsc_does_not_see_the_option_that_it_does_not_know(tmp_path, engine):
    """Its path has a space and a `$`. They mean nothing to the script."""
    add_runsc(tmp_path)
    odd = tmp_path / "b $in"
    odd.mkdir()
    (tmp_path / "bin" / "runsc").rename(odd / "runsc")
    variables = engine.variables()
    asyncio.run(trials(tmp_path, variables | {"PATH": f"{variables['PATH']}{os.pathsep}{odd}"}).find())
    script = tmp_path / "containers" / "runsc"
    done = subprocess.run([script, "exec", "--tty", "--console-socket", "a b", "id"], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["exec", "--console-socket", "a b", "id"]


def test_the_program_runs_here_and_exists_for_other_machines(tmp_path):
    program = probe_program()
    assert program is not None
    path = tmp_path / "probe"
    path.write_bytes(program)
    path.chmod(0o755)
    assert [subprocess.run([path, *words]).returncode for words in ([], ["touch"])] == [0, 0]
    assert probe_program("aarch64") not in (None, program)
    assert probe_program("vax") is None
