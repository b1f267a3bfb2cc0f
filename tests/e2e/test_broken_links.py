"""A deploy whose connection breaks anywhere ends with one revision. Otherwise it reports what is known."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from fal.api import SyncServerlessClient
from fal.deploy.errors import DeployError
from fal_grpc.controller import Controller as Wire
from fal_grpc.credentials import KeyCredentials
from fal_grpc.errors import UnavailableError
from fal_grpc.target import parse_target
from tests.support.controller import ROOT, Controller, running
from tests.support.cutter import Cutter, Direction, cutting


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Generator[Controller]:
    with running(tmp_path_factory.mktemp("state")) as found:
        found.fal("deploy", str(ROOT / "examples/hello.py"), "--app-name", "cut")
        yield found


def revisions(controller: Controller) -> set[str]:
    target = parse_target(controller.host)
    with Wire(target, KeyCredentials(*controller.key.split(":"))) as wire:
        return {found.application_id for found in wire.list_applications("cut")}


def deploy(controller: Controller, cutter: Cutter) -> str:
    with SyncServerlessClient(host=f"127.0.0.1:{cutter.port}", api_key=controller.key) as client:
        return client.deploy(str(ROOT / "examples/hello.py"), app_name="cut", strategy="recreate").revision


def measured(controller: Controller) -> dict[Direction, int]:
    """Return how many bytes a deploy sends in each direction."""
    with cutting(Cutter(controller.port)) as cutter:
        deploy(controller, cutter)
    return cutter.counted


def test_a_cut_anywhere_makes_one_revision_or_says_what_is_known(controller: Controller) -> None:
    sizes = measured(controller)
    before = revisions(controller)
    outcomes: list[str] = []
    for direction, size in sizes.items():
        # The last tenth contains the registration: request, and headers, messages and trailers of the answer.
        places = [size * part // 100 for part in (1, 10, 30, 50, 70, 90)] + [
            size - back for back in (400, 200, 90, 40, 9, 1)
        ]
        for place in places:
            with cutting(Cutter(controller.port, at=(direction, place))) as cutter:
                try:
                    revision: str | None = deploy(controller, cutter)
                except UnavailableError:  # before the registration, whose cut is repeated
                    revision = None
            after = revisions(controller)
            added = after - before
            assert added == ({revision} if revision else set()), f"{direction}, cut after {place} of {size}"
            outcomes.append("deployed" if revision else "not deployed")
            before = after
    assert outcomes.count("deployed") >= 8, outcomes


def test_a_link_that_stays_broken_says_what_is_known_and_how_to_see_it(controller: Controller) -> None:
    told = pytest.raises(DeployError, match=r"the connection broke .*`fal apps (get|list-rev) cut` shows")
    size = measured(controller)["to the client"]
    # Everything but the end of the last answer arrives, each time. A deploy may send less than the measured one: HTTP/2
    # acknowledges and pings by its own clock. Then it comes through, and the next cut is earlier.
    broken: DeployError | None = None
    for missing in (40, 80, 160, 320):
        before = revisions(controller)
        always = Cutter(controller.port, at=("to the client", size - missing), most_cuts=100)
        with cutting(always):
            try:
                deploy(controller, always)
            except DeployError as error:
                broken = error
                break
    assert broken is not None, "every deploy came through"
    with told as raised:
        raise broken
    (added,) = revisions(controller) - before
    assert added in str(raised.value)
