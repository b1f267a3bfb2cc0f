"""An app: its name, its settings, and the revision that serves it. Users call the name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from fal_server.core.identity import AccountId, AppId, app_id_of_row
from fal_server.core.scaling import Scaling


class AuthMode(StrEnum):
    """Who may call an app: holders of a key, or anyone. SHARED is like PRIVATE here."""

    PRIVATE = "private"
    PUBLIC = "public"
    SHARED = "shared"


class Strategy(StrEnum):
    """How an app moves to a new revision. It moves at once, or once a runner of the revision is ready."""

    RECREATE = "recreate"
    ROLLING = "rolling"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app's desired state.

    Attributes:
        name: unique in the account; includes its environment (`name--env`) outside `main`.
        revision_id: the revision that gets the traffic.
        next_revision_id: the target revision of a rolling deploy; None if there is none.
        next_auth_mode: who may call it after the move; None leaves it unchanged.
        next_scaling: the settings after the move, if the deploy asked for the code's; None keeps the app's.
    """

    account: AccountId
    name: str
    environment: str
    revision_id: str
    auth_mode: AuthMode
    scaling: Scaling
    created_at: datetime
    updated_at: datetime
    next_revision_id: str | None = None
    next_auth_mode: AuthMode | None = None
    next_scaling: Scaling | None = None

    @property
    def app_id(self) -> AppId:
        """The app's identity; other accounts may use the same name."""
        return app_id_of_row(self.account, self.name)


def settled(
    app: App, *, revision_id: str | None = None, scaling: Scaling | None = None, auth_mode: AuthMode | None = None
) -> App:
    """Return the app on a revision, without a deploy in progress. None keeps a setting."""
    return replace(
        app,
        revision_id=revision_id or app.revision_id,
        scaling=scaling or app.scaling,
        auth_mode=auth_mode or app.auth_mode,
        next_revision_id=None,
        next_scaling=None,
        next_auth_mode=None,
    )
