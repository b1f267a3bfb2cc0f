"""Accounts, and the members of teams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from fal_grpc.adapter.values import flag, optional_text, text, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import account_pb2


class AccountKind(StrEnum):
    """The kind of an account. UNKNOWN is one that this version does not know."""

    USER = "user"
    TEAM = "team"
    UNKNOWN = "unknown"


class MemberRole(StrEnum):
    """A member's role in its team. UNKNOWN is one that this version does not know."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountInfo:
    """An account.

    Attributes:
        nickname: the first part of the paths of its apps.
        full_name: its name for people.
        user_id: identifies it to the controller when a login token acts for it.
        role: the caller's role in a team; None for the caller's own account and for accounts that it does not belong
        to.
    """

    nickname: str
    kind: AccountKind
    full_name: str
    user_id: str
    role: MemberRole | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamMember:
    """A user in a team; `user` is the nickname of its account."""

    user: str
    role: MemberRole
    added_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """A newly created account and its first key. The key's secret cannot be read again."""

    account: AccountInfo
    key_id: str
    key_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountQuotas:
    """An account's quotas and usage, under the names that `set_quotas` takes.

    Attributes:
        bounds: the limits; 0 means no limit.
        used: the usage of each limit that is an amount; rates have none.
    """

    nickname: str
    bounds: Mapping[str, int]
    used: Mapping[str, int]


_KINDS: Mapping[int, AccountKind] = {1: AccountKind.USER, 2: AccountKind.TEAM}
_ROLES: Mapping[int, MemberRole] = {
    1: MemberRole.OWNER,
    2: MemberRole.ADMIN,
    3: MemberRole.DEVELOPER,
    4: MemberRole.VIEWER,
}
_MOST_BOUND = 2**53
V = TypeVar("V", bound=StrEnum)


def account_info(message: account_pb2.AccountInfo) -> AccountInfo:
    return AccountInfo(
        nickname=message.nickname,
        kind=_KINDS.get(message.kind, AccountKind.UNKNOWN),
        full_name=message.full_name,
        user_id=message.user_id,
        role=_ROLES.get(message.role, MemberRole.UNKNOWN) if message.role else None,
    )


def member(message: account_pb2.Member) -> TeamMember:
    return TeamMember(
        user=message.user,
        role=_ROLES.get(message.role, MemberRole.UNKNOWN),
        added_at=to_datetime(message.added_at),
    )


def quotas_of(message: account_pb2.GetQuotasResponse) -> AccountQuotas:
    return AccountQuotas(nickname=message.nickname, bounds=bounds_of(message.quotas), used=bounds_of(message.used))


def bounds_of(message: account_pb2.Quotas) -> Mapping[str, int]:
    return {field.name: int(value) for field, value in message.ListFields()}


def new_account(message: account_pb2.CreateAccountResponse) -> NewAccount:
    return NewAccount(account=account_info(message.account), key_id=message.key_id, key_secret=message.key_secret)


def list_request(*, everything: bool) -> account_pb2.ListAccountsRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.ListAccountsRequest(all=flag("everything", everything))


def create_request(
    nickname: str, *, kind: AccountKind | str, full_name: str | None
) -> account_pb2.CreateAccountRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.CreateAccountRequest(
        nickname=_nickname("nickname", nickname),
        kind=account_pb2.AccountKind.ValueType(_number("kind", kind, _KINDS)),
        full_name=optional_text("full_name", full_name),
    )


def members_request(team: str) -> account_pb2.ListMembersRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.ListMembersRequest(team=_nickname("team", team))


def add_request(team: str, user: str, *, role: MemberRole | str) -> account_pb2.AddMemberRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.AddMemberRequest(
        team=_nickname("team", team),
        user=_nickname("user", user),
        role=account_pb2.MemberRole.ValueType(_number("role", role, _ROLES)),
    )


def remove_request(team: str, user: str) -> account_pb2.RemoveMemberRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.RemoveMemberRequest(team=_nickname("team", team), user=_nickname("user", user))


def rename_request(nickname: str, new_nickname: str, *, full_name: str | None) -> account_pb2.RenameAccountRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.RenameAccountRequest(
        nickname=_nickname("nickname", nickname),
        new_nickname=_nickname("new_nickname", new_nickname),
        full_name=optional_text("full_name", full_name),
    )


def delete_request(nickname: str) -> account_pb2.DeleteAccountRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.DeleteAccountRequest(nickname=_nickname("nickname", nickname))


def get_quotas_request(nickname: str) -> account_pb2.GetQuotasRequest:
    from fal_grpc.v1 import account_pb2

    return account_pb2.GetQuotasRequest(
        nickname=text("nickname", nickname, "must be a nickname; `fal teams list` lists them", empty=True)
    )


def set_quotas_request(nickname: str, wanted: Mapping[str, object]) -> account_pb2.SetQuotasRequest:
    from fal_grpc.v1 import account_pb2

    bounds: dict[str, int] = {}
    for name, bound in wanted.items():
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, int) or not 0 <= bound <= _MOST_BOUND:
            raise ArgumentError(name, f"must be a whole number, 0 for no limit, not {bound!r}")
        bounds[name] = bound
    return account_pb2.SetQuotasRequest(nickname=_nickname("nickname", nickname), quotas=account_pb2.Quotas(**bounds))


def _nickname(argument: str, nickname: object) -> str:
    return text(argument, nickname, "must be a nickname that is not empty; `fal teams list` lists them")


def _number(argument: str, value: V | str, values: Mapping[int, V]) -> int:
    names = ", ".join(repr(each.value) for each in values.values())
    wanted = text(argument, value, f"must be one of {names}").lower()
    for number, each in values.items():
        if each.value == wanted:
            return number
    raise ArgumentError(argument, f"must be one of {names}, not {value!r}")
