"""Handlers for accounts and their members."""

from __future__ import annotations

from dataclasses import asdict

from fal_grpc.v1 import account_pb2 as pb
from fal_server.core.accounts import Account, AccountKind, Role
from fal_server.core.quotas import Quotas
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named, timestamp
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.account_removal import AccountRemoval
from fal_server.services.accounts import Accounts, MemberView

_KINDS: dict[int, AccountKind] = {
    pb.ACCOUNT_KIND_USER: AccountKind.USER,
    pb.ACCOUNT_KIND_TEAM: AccountKind.TEAM,
}
_ROLES: dict[int, Role] = {
    pb.MEMBER_ROLE_OWNER: Role.OWNER,
    pb.MEMBER_ROLE_ADMIN: Role.ADMIN,
    pb.MEMBER_ROLE_DEVELOPER: Role.DEVELOPER,
    pb.MEMBER_ROLE_VIEWER: Role.VIEWER,
}
_KIND_NUMBERS = {kind: pb.AccountKind.ValueType(number) for number, kind in _KINDS.items()}
_ROLE_NUMBERS = {role: pb.MemberRole.ValueType(number) for number, role in _ROLES.items()}


class AccountHandlers:
    """fal.v1.Accounts."""

    def __init__(self, accounts: Accounts, removal: AccountRemoval, quotas: AccountQuotas) -> None:
        self._accounts = accounts
        self._removal = removal
        self._quotas = quotas

    async def list_accounts(self, request: pb.ListAccountsRequest, caller: Caller) -> pb.ListAccountsResponse:
        found = await self._accounts.list(caller.principal, everything=request.all)
        return pb.ListAccountsResponse(accounts=[_info(view.account, view.role) for view in found])

    async def create_account(self, request: pb.CreateAccountRequest, caller: Caller) -> pb.CreateAccountResponse:
        account, (key_id, secret) = await self._accounts.create(
            request.nickname,
            named(request.kind, _KINDS, "kind"),
            request.full_name if request.HasField("full_name") else None,
        )
        return pb.CreateAccountResponse(account=_info(account), key_id=key_id, key_secret=secret)

    async def list_members(self, request: pb.ListMembersRequest, caller: Caller) -> pb.ListMembersResponse:
        members = await self._accounts.members(caller.principal, request.team)
        return pb.ListMembersResponse(members=[_member(view) for view in members])

    async def add_member(self, request: pb.AddMemberRequest, caller: Caller) -> pb.AddMemberResponse:
        role = named(request.role, _ROLES, "role")
        added = await self._accounts.save_member(caller.principal, request.team, request.user, role)
        return pb.AddMemberResponse(member=_member(added))

    async def remove_member(self, request: pb.RemoveMemberRequest, caller: Caller) -> pb.RemoveMemberResponse:
        await self._accounts.remove_member(caller.principal, request.team, request.user)
        return pb.RemoveMemberResponse()

    async def rename_account(self, request: pb.RenameAccountRequest, caller: Caller) -> pb.RenameAccountResponse:
        full_name = request.full_name if request.HasField("full_name") else None
        account = await self._accounts.rename(request.nickname, request.new_nickname, full_name)
        return pb.RenameAccountResponse(account=_info(account))

    async def delete_account(self, request: pb.DeleteAccountRequest, caller: Caller) -> pb.DeleteAccountResponse:
        return pb.DeleteAccountResponse(removed=await self._removal.delete(request.nickname))

    async def get_quotas(self, request: pb.GetQuotasRequest, caller: Caller) -> pb.GetQuotasResponse:
        view = await self._quotas.of(caller.principal, request.nickname)
        return pb.GetQuotasResponse(
            nickname=view.account.nickname, quotas=_quotas(view.account.quotas), used=pb.Quotas(**view.used)
        )

    async def set_quotas(self, request: pb.SetQuotasRequest, caller: Caller) -> pb.SetQuotasResponse:
        changes: dict[str, int] = {field.name: int(bound) for field, bound in request.quotas.ListFields()}
        account = await self._quotas.change(request.nickname, changes)
        return pb.SetQuotasResponse(quotas=_quotas(account.quotas))


def _quotas(quotas: Quotas) -> pb.Quotas:
    return pb.Quotas(**asdict(quotas))


def _info(account: Account, role: Role | None = None) -> pb.AccountInfo:
    return pb.AccountInfo(
        nickname=account.nickname,
        kind=_KIND_NUMBERS[account.kind],
        full_name=account.full_name,
        user_id=account.user_id,
        role=pb.MEMBER_ROLE_UNSPECIFIED if role is None else _ROLE_NUMBERS[role],
    )


def _member(view: MemberView) -> pb.Member:
    return pb.Member(
        user=view.user.nickname,
        role=_ROLE_NUMBERS[view.member.role],
        added_at=timestamp(view.member.added_at),
    )
