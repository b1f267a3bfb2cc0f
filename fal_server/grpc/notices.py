"""Handlers for notices; what may be a credential never leaves the controller."""

from __future__ import annotations

from fal_grpc.v1 import notice_pb2 as pb
from fal_server.core.notices import NoticeForm, Problem
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named, timestamp
from fal_server.services.notices import Notices, NoticeView

_FORMS = {
    NoticeForm.WEBHOOK: pb.NOTICE_FORM_WEBHOOK,
    NoticeForm.SLACK: pb.NOTICE_FORM_SLACK,
    NoticeForm.EMAIL: pb.NOTICE_FORM_EMAIL,
}
_FORM_OF: dict[int, NoticeForm] = {
    pb.NOTICE_FORM_UNSPECIFIED: NoticeForm.WEBHOOK,
    **{number: form for form, number in _FORMS.items()},
}


class NoticeHandlers:
    """fal.v1.Notices."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    async def create_notice(self, request: pb.CreateNoticeRequest, caller: Caller) -> pb.CreateNoticeResponse:
        view = await self._notices.create(
            caller.scope,
            request.name,
            request.url,
            form=named(request.form, _FORM_OF, "form"),
            thresholds=request.thresholds,
            apps=request.apps,
            signing_key=request.signing_key if request.HasField("signing_key") else None,
            to=request.to,
            sender=request.sender if request.HasField("sender") else None,
            password=request.password if request.HasField("password") else None,
        )
        return pb.CreateNoticeResponse(notice=_notice(view))

    async def list_notices(self, request: pb.ListNoticesRequest, caller: Caller) -> pb.ListNoticesResponse:
        return pb.ListNoticesResponse(notices=[_notice(view) for view in await self._notices.list(caller.scope)])

    async def get_notice(self, request: pb.GetNoticeRequest, caller: Caller) -> pb.GetNoticeResponse:
        return pb.GetNoticeResponse(notice=_notice(await self._notices.get(caller.scope, request.name)))

    async def test_notice(self, request: pb.TestNoticeRequest, caller: Caller) -> pb.TestNoticeResponse:
        await self._notices.test(caller.scope, request.name)
        return pb.TestNoticeResponse()

    async def delete_notice(self, request: pb.DeleteNoticeRequest, caller: Caller) -> pb.DeleteNoticeResponse:
        await self._notices.delete(caller.scope, request.name)
        return pb.DeleteNoticeResponse()


def _notice(view: NoticeView) -> pb.Notice:
    notice = view.notice
    return pb.Notice(
        name=notice.name,
        form=_FORMS[notice.form],
        receiver=notice.receiver,
        thresholds={condition.value: value for condition, value in notice.thresholds.items()},
        apps=notice.apps,
        signed=notice.signed,
        created_at=timestamp(notice.created_at),
        last_sent_at=None if notice.last_sent_at is None else timestamp(notice.last_sent_at),
        last_error=notice.last_error,
        last_error_at=None if notice.last_error_at is None else timestamp(notice.last_error_at),
        problems=[_problem(problem) for problem in view.problems],
    )


def _problem(problem: Problem) -> pb.NoticeProblem:
    return pb.NoticeProblem(
        condition=problem.condition.value,
        subject=problem.subject,
        value=problem.value,
        detail=problem.detail,
        began_at=timestamp(problem.began_at),
        told_at=None if problem.told_at is None else timestamp(problem.told_at),
        ended_at=None if problem.ended_at is None else timestamp(problem.ended_at),
    )
