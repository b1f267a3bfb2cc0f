"""The controller's state in memory, built in the order of its dependencies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fal_server.core.identity import AccountId
from fal_server.core.runners import Runner
from fal_server.live.backlog import Backlog
from fal_server.live.catalog import Catalog
from fal_server.live.decisions import Decisions
from fal_server.live.dispatch import Dispatcher
from fal_server.live.ended_payloads import EndedPayloads
from fal_server.live.ended_requests import EndedRequests
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.live.health import Health
from fal_server.live.measurements import Measurements
from fal_server.live.request_totals import RequestTotals
from fal_server.live.unsent_lines import UnsentLines
from fal_server.loops.loop_lag import LoopLag
from fal_server.ports import Clock
from fal_server.store.sql.store import SqlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """The state of the running process.

    Attributes:
        changed: notified when the reconciler may have work.
    """

    changed: ChangeNotifier
    catalog: Catalog
    fleet: Fleet
    backlog: Backlog
    health: Health
    dispatcher: Dispatcher
    decisions: Decisions
    resources: Measurements
    ended: EndedRequests
    payloads: EndedPayloads
    totals: RequestTotals
    loop_lag: LoopLag
    unsent_lines: UnsentLines


def build_live(
    *,
    store: SqlStore,
    clock: Clock,
    accounts: Mapping[str, AccountId],
    unsent_lines: UnsentLines,
    node_answers: Callable[[Runner], Awaitable[bool] | None],
    is_owner: Callable[[], bool],
) -> LiveState:
    """Build the state. It is empty until the catalog and the fleet are loaded.

    Args:
        accounts: by name, which is the first part of the paths of an account's apps.
        node_answers: see Dispatcher.
        is_owner: see Dispatcher.
    """
    changed = ChangeNotifier()
    catalog = Catalog(store, clock, changed)
    health = Health(catalog)
    fleet = Fleet(store, clock, changed, health)
    backlog = Backlog(clock)
    return LiveState(
        changed=changed,
        catalog=catalog,
        fleet=fleet,
        backlog=backlog,
        health=health,
        dispatcher=Dispatcher(
            catalog, fleet, backlog, clock, changed, accounts, node_answers=node_answers, is_owner=is_owner
        ),
        decisions=Decisions(clock),
        resources=Measurements(fleet),
        ended=EndedRequests(),
        payloads=EndedPayloads(),
        totals=RequestTotals(),
        loop_lag=LoopLag(),
        unsent_lines=unsent_lines,
    )
