"""Notices: who is told of what, and that it is once. The tests cover restarts, receivers that are away, and secrets."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.message import EmailMessage

import pytest

from fal_server.core.accounts import Account, AccountKind, KnownAccounts
from fal_server.core.faults import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import End
from fal_server.core.notices import REMIND_AFTER, Mailbox, NoticeCondition, NoticeForm
from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.live.request_totals import AppTotals, RequestTotals
from fal_server.loops.notices import EVERY_SECONDS, RETRIES, NoticeLoop
from fal_server.services.conditions import Conditions
from fal_server.services.notices import MOST_NOTICES, Notices
from fal_server.store import AesVault
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import KEY, OTHER, Platform

URL = "https://user:pass@receiver.test/in?key=secret"
SIGNING_KEY = "k" * 64


class Receiver:
    """An OutboundClient and a MailClient that keep what they take. `trouble` comes first."""

    def __init__(self) -> None:
        self.calls: list[OutboundCall] = []
        self.mails: list[tuple[Mailbox, EmailMessage]] = []
        self.trouble: list[Receipt | Exception] = []
        self.private = ""

    async def post(self, call: OutboundCall) -> Receipt:
        answer = self.trouble.pop(0) if self.trouble else Receipt(status=204)
        if isinstance(answer, Exception):
            raise answer
        if answer.taken:
            self.calls.append(call)
        return answer

    async def send(self, mailbox: Mailbox, message: EmailMessage) -> None:
        if self.trouble:
            raise OSError("the server is away")
        self.mails.append((mailbox, message))

    async def why_forbidden(self, host: str, port: int) -> str:
        return f"{host} is private" if host == self.private else ""

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """State, condition and subject of each problem that came."""
        return [
            (each["state"], each["condition"], each["subject"])
            for call in self.calls
            for each in json.loads(call.body)["problems"]
        ]


class Machine:
    """A ControllerHealth."""

    def __init__(self) -> None:
        self.used = 10.0
        self.ends_at: datetime | None = None
        self.lost: list[str] = []

    async def disk_used_percent(self) -> float:
        return self.used

    def lost_nodes(self) -> list[str]:
        return self.lost

    def certificate_ends_at(self) -> datetime | None:
        return self.ends_at


@dataclass
class Desk:
    platform: Platform
    receiver: Receiver
    machine: Machine
    totals: RequestTotals
    notices: Notices
    loop: NoticeLoop

    async def create(self, name: str = "n", url: str = URL, **options):
        return await self.notices.create(SCOPE, name, url, **options)

    async def look(self) -> float | None:
        wait = await self.loop.look()
        await self.loop.settle()
        return wait

    async def pass_time(self, **time: float) -> None:
        """Let time pass as the loop sees it."""
        end = self.platform.clock.now() + timedelta(**time)
        while self.platform.clock.now() < end:
            self.platform.clock.advance(EVERY_SECONDS)
            await self.look()

    def restart(self) -> None:
        """Have what a controller that has just started has. It knows nothing but the store."""
        conditions = Conditions(
            self.platform.catalog,
            self.platform.fleet,
            self.platform.dispatcher,
            self.totals,
            self.machine,
            self.platform.clock,
        )
        self.loop = NoticeLoop(self.notices, self.platform.store.notices, conditions, self.platform.clock)


@pytest.fixture
async def desk(platform: Platform) -> Desk:
    receiver = Receiver()
    known = KnownAccounts(
        [Account(id=LOCAL, nickname="me", kind=AccountKind.USER, user_id="local|local", full_name="")]
    )
    notices = Notices(platform.store.notices, AesVault(KEY), receiver, receiver, known, platform.clock)
    made = Desk(platform, receiver, Machine(), RequestTotals(), notices, None)  # type: ignore[arg-type]
    made.restart()
    return made


async def test_a_problem_is_told_when_it_begins_and_when_it_ends(desk: Desk) -> None:
    await desk.create(thresholds={"disk-full": 90})
    desk.machine.used = 95
    assert await desk.look() == EVERY_SECONDS
    assert desk.receiver.told == [("firing", "disk-full", "controller")]
    await desk.pass_time(hours=1)
    assert len(desk.receiver.told) == 1
    desk.machine.used = 50
    await desk.pass_time(minutes=4)
    assert len(desk.receiver.told) == 1
    await desk.pass_time(minutes=2)
    assert desk.receiver.told[1:] == [("resolved", "disk-full", "controller")]
    await desk.pass_time(hours=1)
    assert len(desk.receiver.told) == 2
    assert (await desk.notices.get(SCOPE, "n")).problems == []


async def test_a_problem_that_lasts_is_repeated_rarely(desk: Desk) -> None:
    await desk.create(thresholds={"disk-full": 90})
    desk.machine.used = 95
    await desk.look()
    desk.platform.clock.advance(REMIND_AFTER.total_seconds() - 1)
    await desk.look()
    assert len(desk.receiver.calls) == 1
    desk.platform.clock.advance(1)
    await desk.look()
    assert len(desk.receiver.calls) == 2


async def test_a_restart_tells_of_nothing_twice_and_forgets_no_end(desk: Desk) -> None:
    await desk.create(thresholds={"disk-full": 90})
    desk.machine.used = 95
    await desk.look()
    desk.restart()
    await desk.pass_time(minutes=10)
    assert len(desk.receiver.told) == 1
    desk.machine.used = 50
    await desk.look()
    desk.restart()
    await desk.pass_time(minutes=6)
    assert [state for state, *_ in desk.receiver.told] == ["firing", "resolved"]


async def test_a_receiver_that_is_away_is_told_later_with_growing_pauses(desk: Desk) -> None:
    await desk.create(thresholds={"disk-full": 90})
    desk.machine.used = 95
    desk.receiver.trouble = [OSError("away"), Receipt(status=500), OSError("away"), OSError("away")]
    await desk.look()
    view = await desk.notices.get(SCOPE, "n")
    assert (view.notice.last_error, view.problems[0].told_at) == ("away", None)
    await desk.look()  # at once: not tried again
    assert len(desk.receiver.trouble) == 3
    await desk.pass_time(seconds=30)
    assert (await desk.notices.get(SCOPE, "n")).notice.last_error == "the receiver answered 500"
    await desk.pass_time(seconds=2 * RETRIES.longest_seconds)
    assert len(desk.receiver.told) == 1
    assert (await desk.notices.get(SCOPE, "n")).notice.last_error is None


async def test_a_problem_that_ended_before_anybody_knew_is_told_as_over(desk: Desk) -> None:
    await desk.create(thresholds={"disk-full": 90})
    desk.machine.used = 95
    desk.receiver.trouble = [OSError("away")] * 8
    await desk.look()
    desk.machine.used = 50
    await desk.pass_time(hours=2)
    assert desk.receiver.told == [("resolved", "disk-full", "controller")]


async def test_a_bad_receiver_holds_up_no_other(desk: Desk) -> None:
    await desk.create("bad", "https://bad.test/", thresholds={"disk-full": 90})
    await desk.create("good", thresholds={"disk-full": 90})
    desk.machine.used = 95
    desk.receiver.trouble = [OSError("away")]
    await desk.look()
    assert len(desk.receiver.calls) == 1


async def test_failed_starts_of_an_app(desk: Desk) -> None:
    await desk.create(thresholds={"startup-failure": 1, "startup-timeout": 1})
    desk.platform.engine.start_as = Start.ENDS
    await desk.platform.deploy("a", scaling={"min_concurrency": 1, "max_concurrency": 1})
    await desk.platform.until(lambda: desk.platform.fleet.failures(app_id("a"), desk.platform.app().revision_id).count)
    await desk.look()
    assert desk.receiver.told == [("firing", "startup-failure", "a")]
    assert "setup() raised ValueError" in desk.receiver.calls[0].body.decode()
    desk.platform.engine.start_as = Start.READY
    desk.platform.fleet.forgive(app_id("a"))
    await desk.pass_time(minutes=6)
    assert desk.receiver.told[1:] == [("resolved", "startup-failure", "a")]


async def test_a_full_queue(desk: Desk) -> None:
    await desk.create(thresholds={"queue-size": 2}, apps=["a"])
    await desk.platform.deploy("a", scaling={"min_concurrency": 1, "max_concurrency": 1})
    await desk.platform.get()
    waiting = [desk.platform.ask(request_id=f"r{n}") for n in range(2)]
    await desk.platform.until(lambda: desk.platform.dispatcher.load(desk.platform.app()).queued == 2)
    await desk.look()
    assert desk.receiver.told == [("firing", "queue-size", "a")]
    for one in waiting:
        one.cancel()


async def test_the_share_of_failed_requests(desk: Desk) -> None:
    await desk.create(thresholds={"error-share": 10})
    totals = AppTotals()
    totals.ended.update({("POST", 200): 17, ("POST", 503): 1, ("GET", 500): 1})
    desk.totals.add({(LOCAL, "a"): totals, (OTHER, "b"): totals}, desk.platform.clock.now())
    await desk.look()
    assert desk.receiver.told == []  # too few requests
    more = AppTotals()
    more.ended.update({("POST", 200): 1})
    desk.totals.add({(LOCAL, "a"): more}, desk.platform.clock.now())
    await desk.look()
    assert desk.receiver.told == [("firing", "error-share", "a")]


async def test_a_runner_without_memory(desk: Desk) -> None:
    await desk.create(thresholds={"out-of-memory": 1})
    await desk.platform.deploy("a", scaling={"min_concurrency": 1, "max_concurrency": 1})
    await desk.platform.get()
    runner = desk.platform.the_runner()
    desk.platform.engine.gone(runner.runner_id, "worker exited: XS ran out of memory", 137, end=End.OUT_OF_MEMORY)
    await desk.platform.until(lambda: desk.platform.fleet.get(runner.runner_id) is None)
    await desk.look()
    assert desk.receiver.told == [("firing", "out-of-memory", "a")]
    await desk.pass_time(minutes=16)
    assert desk.receiver.told[-1] == ("resolved", "out-of-memory", "a")


async def test_a_certificate_that_ends(desk: Desk) -> None:
    await desk.create(thresholds={"certificate": 0})
    desk.machine.ends_at = desk.platform.clock.now() + timedelta(days=15)
    await desk.look()
    assert desk.receiver.told == []
    desk.machine.ends_at = desk.platform.clock.now() + timedelta(days=13)
    await desk.look()
    assert desk.receiver.told == [("firing", "certificate", "controller")]


async def test_a_node_that_does_not_answer(desk: Desk) -> None:
    await desk.create(thresholds={"node-lost": 0})
    desk.machine.lost = ["gpu-2"]
    await desk.look()
    assert desk.receiver.told == []  # as at the start of a controller
    await desk.pass_time(seconds=75)
    assert desk.receiver.told == [("firing", "node-lost", "gpu-2")]
    desk.machine.lost = []
    await desk.pass_time(minutes=6)
    assert desk.receiver.told[1:] == [("resolved", "node-lost", "gpu-2")]


async def test_without_notices_nothing_is_looked_at(desk: Desk) -> None:
    assert await desk.look() is None


async def test_a_webhook_is_signed_json(desk: Desk) -> None:
    await desk.create(signing_key=SIGNING_KEY)
    await desk.notices.test(SCOPE, "n")
    (call,) = desk.receiver.calls
    headers = dict(call.headers)
    assert call.url == URL
    assert headers["content-type"] == "application/json"
    assert headers["x-fal-signature"] == hmac.new(SIGNING_KEY.encode(), call.body, hashlib.sha256).hexdigest()
    document = json.loads(call.body)
    assert (document["notice"], document["account"], document["test"], document["problems"]) == ("n", "me", True, [])


async def test_slack_gets_text_in_which_apps_cannot_call_everybody(desk: Desk) -> None:
    await desk.create(form=NoticeForm.SLACK, thresholds={"startup-failure": 1})
    desk.platform.engine.start_as, desk.platform.engine.why = Start.ENDS, "<!channel> & <https://x.test|click>"
    await desk.platform.deploy("a", scaling={"min_concurrency": 1, "max_concurrency": 1})
    await desk.platform.until(lambda: desk.platform.fleet.failures(app_id("a"), desk.platform.app().revision_id).count)
    await desk.look()
    text = json.loads(desk.receiver.calls[0].body)["text"]
    assert "&lt;!channel&gt; &amp; &lt;https" in text
    assert "<" not in text


async def test_an_email(desk: Desk) -> None:
    await desk.create(
        url="smtp://me@mail.test", form=NoticeForm.EMAIL, to=["a@b.c", "d@e.f"], sender="x@y.z", password="secret"
    )
    await desk.notices.test(SCOPE, "n")
    mailbox, message = desk.receiver.mails[0]
    assert (mailbox.host, mailbox.user, mailbox.password) == ("mail.test", "me", "secret")
    assert (message["from"], message["to"]) == ("x@y.z", "a@b.c, d@e.f")
    assert message["subject"] == "fal: a test notice of me"
    assert (await desk.notices.get(SCOPE, "n")).notice.receiver == "a@b.c, d@e.f"


async def test_a_test_says_why_it_failed(desk: Desk) -> None:
    await desk.create()
    desk.receiver.trouble = [Receipt(status=404)]
    with pytest.raises(FailedPrecondition, match="the receiver answered 404"):
        await desk.notices.test(SCOPE, "n")
    assert (await desk.notices.get(SCOPE, "n")).notice.last_error == "the receiver answered 404"


async def test_what_is_refused(desk: Desk) -> None:
    desk.receiver.private = "10.0.0.1"
    with pytest.raises(InvalidArgument, match=r"10\.0\.0\.1 is private"):
        await desk.create(url="http://10.0.0.1/")
    with pytest.raises(InvalidArgument, match=r"10\.0\.0\.1 is private"):
        await desk.create(url="smtp://10.0.0.1", form=NoticeForm.EMAIL, to=["a@b.c"])
    with pytest.raises(InvalidArgument, match="signing_key"):
        await desk.create(form=NoticeForm.SLACK, signing_key=SIGNING_KEY)
    with pytest.raises(InvalidArgument, match="signing_key"):
        await desk.create(url="smtp://h", form=NoticeForm.EMAIL, to=["a@b.c"], signing_key=SIGNING_KEY)
    await desk.create()
    with pytest.raises(AlreadyExists):
        await desk.create()
    for number in range(1, MOST_NOTICES):
        await desk.create(f"n{number}")
    with pytest.raises(ResourceExhausted):
        await desk.create("more")


async def test_secrets_are_sealed_and_shown_nowhere(desk: Desk) -> None:
    view = await desk.create(signing_key=SIGNING_KEY)
    assert view.notice.receiver == "receiver.test"
    row = await desk.platform.store.notices.get(LOCAL, "n")
    assert row is not None
    stored = row.sealed
    for secret in ("pass", "secret", SIGNING_KEY):
        assert secret not in repr(view)
        assert secret.encode() not in stored


async def test_accounts_know_nothing_of_each_other(desk: Desk) -> None:
    await desk.create()
    stranger = replace(SCOPE, account=OTHER)
    assert await desk.notices.list(stranger) == []
    for call in (desk.notices.get, desk.notices.delete, desk.notices.test):
        with pytest.raises(NotFound):
            await call(stranger, "n")
    with pytest.raises(InvalidArgument, match="no condition"):
        await desk.notices.create(stranger, "n", URL, thresholds={"disk-full": 90})
    made = await desk.notices.create(stranger, "n", URL)
    assert NoticeCondition.DISK_FULL not in made.notice.thresholds
    await desk.notices.end_account(OTHER)
    assert await desk.notices.list(stranger) == []
    await desk.notices.delete(SCOPE, "n")
    assert await desk.notices.list(SCOPE) == []
