"""Skills: they are listed, shown and installed, and mention only existing commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fal_cli.commands.skills import FOLDER, OTHER, skills
from fal_cli.main import main

NAMES = ["fal-debug", "fal-deploy", "fal-scale", "fal-write-app"]


def test_skills_are_listed_in_every_form(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["skills", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out).values()
    assert [each["name"] for each in listed] == NAMES
    assert main(["skill", "list", "-o", "name", "--sort", "name:desc"]) == 0
    assert capsys.readouterr().out.split() == NAMES[::-1]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["skills", "list", "--columns", "name"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NAMES) + 1


@pytest.mark.parametrize("skill", skills(), ids=lambda skill: skill.name)
def test_a_skill_has_the_form_that_agents_read(skill) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,64}", skill.name)
    assert skill.name in {path.name for path in FOLDER.iterdir()}
    assert 20 < len(skill.about) < 1024
    assert "Use it" in skill.about
    assert len(skill.text.splitlines()) < 500


@pytest.mark.parametrize("name", [*NAMES, "AGENTS.md", "llms.txt"])
def test_a_text_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["skills", "show", name]) == 0
    assert capsys.readouterr().out == OTHER.get(name, FOLDER / name / "SKILL.md").read_text()


def test_a_name_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["skills", "show", "fal-nothing"]) == 1
    assert "there is no skill 'fal-nothing': use one of fal-debug" in capsys.readouterr().err


@pytest.mark.parametrize("folder", [None, "skills", "deep/er"])
def test_skills_are_installed(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["skills", "install", *([folder] if folder else [])]) == 0
    written = tmp_path / (folder or ".agents/skills")
    assert str(written.relative_to(tmp_path)) in capsys.readouterr().err
    assert sorted(path.parent.name for path in written.glob("*/SKILL.md")) == NAMES
    (written / "fal-scale" / "SKILL.md").write_text("an older one")
    (written / "mine.md").write_text("of the user")
    assert main(["skills", "install", "--yes", str(written)]) == 0
    assert (written / "fal-scale" / "SKILL.md").read_text() == (FOLDER / "fal-scale" / "SKILL.md").read_text()
    assert (written / "mine.md").read_text() == "of the user"


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["skills", "install", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_the_way_to_all_texts_names_them_all() -> None:
    text = OTHER["llms.txt"].read_text()
    for name in NAMES:
        assert f"fal skills show {name}" in text
    root = Path(__file__).resolve().parents[2]
    for page in re.findall(r"/blob/main/(\S+)\)", text):
        assert (root / page).is_file(), page
