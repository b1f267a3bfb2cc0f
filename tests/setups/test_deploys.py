"""What a deploy brings to runners, and the next revision."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from tests.setups.apps import Deployed
from tests.setups.platform import LABEL, Platform
from tests.support.rolled_app import Rollouts, load_on
from tests.support.waiting import until


def test_files_and_secrets_reach_the_app(platform: Platform, app: Deployed) -> None:
    assert app.ask(platform.other, "", "/brought").json() == {"phrase": app.phrase, "secret": app.secret}


def test_a_file_of_an_app_is_fetched_from_each_controller(platform: Platform, app: Deployed) -> None:
    made = app.ask(platform.owner, "", "/made").json()
    assert isinstance(made, dict)
    path = made["url"].split("/", 3)[3]
    for controller in (platform.owner, platform.other):
        with urllib.request.urlopen(f"http://{controller.host}/{path}") as answer:
            assert answer.read() == b"made by an app"


def test_no_request_fails_while_the_next_revision_comes(platform: Platform, tmp_path: Path) -> None:
    rolled = Rollouts(platform.other, "rolled", tmp_path)
    with rolled.sdk:
        first = rolled.deploy("one", machine=LABEL)
        platform.serving("rolled", 1)
        with load_on(platform.owner, "rolled", 2) as load, load_on(platform.other, "rolled", 2) as other_load:
            for each in (load, other_load):
                each.comes_from("one")
            assert rolled.deploy("two", machine=LABEL) != first
            for each in (load, other_load):
                each.comes_from("two")
            until(lambda: {each.revision for each in rolled.serving()} == {rolled.revision()}, "the end of the first")
        assert (load.failures, other_load.failures) == ([], [])
        platform.owner.fal("apps", "delete", "rolled", "--yes")
