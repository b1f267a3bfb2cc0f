"""Notices: who is told of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import mapping, number, text, texts, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import notice_pb2

FORMS = ("webhook", "slack", "email")
"""How a receiver can be told; on the wire by their place, from 1 on."""
_NAME = "must be the name of a notice, such as ops"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeProblem:
    """Something that is wrong.

    Attributes:
        condition: such as "queue-size".
        subject: the app, the machine, or "controller".
        value: when the receiver was last told, in the condition's unit.
        detail: for people.
        told_at: when the receiver was last told; None if it does not know of it yet.
        ended_at: None while it lasts.
    """

    condition: str
    subject: str
    value: float
    detail: str
    began_at: datetime
    told_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Who is told of what, without its secrets.

    Attributes:
        form: "webhook", "slack" or "email".
        receiver: the host that is called, or the addresses that get e-mail.
        thresholds: by condition the value from which it is a problem.
        apps: only problems of these apps; empty means all.
        signed: whether webhooks are signed.
        last_sent_at: when the receiver last took something; None if it never did.
        last_error: why the last try failed; None if it did not.
        problems: those that exist, or of whose end the receiver does not know yet.
    """

    name: str
    form: str
    receiver: str
    thresholds: Mapping[str, float]
    apps: tuple[str, ...]
    signed: bool
    created_at: datetime
    last_sent_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    problems: tuple[NoticeProblem, ...]


def notice(message: notice_pb2.Notice) -> Notice:
    return Notice(
        name=message.name,
        form=FORMS[message.form - 1] if 1 <= message.form <= len(FORMS) else "unknown",
        receiver=message.receiver,
        thresholds=dict(message.thresholds),
        apps=tuple(message.apps),
        signed=message.signed,
        created_at=to_datetime(message.created_at),
        last_sent_at=to_datetime(message.last_sent_at) if message.HasField("last_sent_at") else None,
        last_error=message.last_error if message.HasField("last_error") else None,
        last_error_at=to_datetime(message.last_error_at) if message.HasField("last_error_at") else None,
        problems=tuple(_problem(each) for each in message.problems),
    )


def _problem(message: notice_pb2.NoticeProblem) -> NoticeProblem:
    return NoticeProblem(
        condition=message.condition,
        subject=message.subject,
        value=message.value,
        detail=message.detail,
        began_at=to_datetime(message.began_at),
        told_at=to_datetime(message.told_at) if message.HasField("told_at") else None,
        ended_at=to_datetime(message.ended_at) if message.HasField("ended_at") else None,
    )


def create_request(
    name: str,
    url: str,
    *,
    form: str,
    thresholds: Mapping[str, float] | None,
    apps: Sequence[str],
    signing_key: str | None,
    to: Sequence[str],
    sender: str | None,
    password: str | None,
) -> notice_pb2.CreateNoticeRequest:
    """Return a request to create a notice.

    Raises:
        ArgumentError: an argument is of a wrong type, or no known form.
    """
    from fal_grpc.v1 import notice_pb2

    if form not in FORMS:
        raise ArgumentError("form", f"must be one of {', '.join(FORMS)}, not {form!r}")
    values = {
        text("thresholds", key): number("thresholds", value)
        for key, value in mapping("thresholds", {} if thresholds is None else thresholds).items()
    }
    return notice_pb2.CreateNoticeRequest(
        name=text("name", name, _NAME),
        url=text("url", url, "must be an http, https, smtp or smtps URL"),
        form=notice_pb2.NoticeForm.ValueType(FORMS.index(form) + 1),
        thresholds=values,
        apps=texts("apps", apps),
        signing_key=None if signing_key is None else text("signing_key", signing_key),
        to=texts("to", to),
        sender=None if sender is None else text("sender", sender),
        password=None if password is None else text("password", password),
    )


def list_request() -> notice_pb2.ListNoticesRequest:
    from fal_grpc.v1 import notice_pb2

    return notice_pb2.ListNoticesRequest()


def get_request(name: str) -> notice_pb2.GetNoticeRequest:
    from fal_grpc.v1 import notice_pb2

    return notice_pb2.GetNoticeRequest(name=text("name", name, _NAME))


def test_request(name: str) -> notice_pb2.TestNoticeRequest:
    from fal_grpc.v1 import notice_pb2

    return notice_pb2.TestNoticeRequest(name=text("name", name, _NAME))


def delete_request(name: str) -> notice_pb2.DeleteNoticeRequest:
    from fal_grpc.v1 import notice_pb2

    return notice_pb2.DeleteNoticeRequest(name=text("name", name, _NAME))
