"""Shows a deploy's plan to people and to programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.api import DeployPlan, PlannedChange

_SHOWN_ID = 12


def lines(plan: DeployPlan) -> Iterator[str]:
    """Yield a plan as lines."""
    if plan.current_id is None:
        yield f"{plan.app_name} would be a new app:"
    elif plan.changes:
        yield f"{plan.app_name} is on revision {plan.current_id}. This would change:"
    else:
        yield f"{plan.app_name} is on revision {plan.current_id}. No setting and no code would change."
    width = max((len(change.name) for change in plan.changes), default=0)
    for change in plan.changes:
        yield f"  {change.name:<{width}}  {_difference(change, new=plan.current_id is None)}"
    if plan.kept:
        yield f"{plan.kept}."
    state = "is built" if plan.environment_built else "would be built"
    yield f"Its environment ({plan.env_id[:_SHOWN_ID]}) {state}."
    if plan.steps:
        yield "The controller would then:"
        yield from (f"  {number}. {step}" for number, step in enumerate(plan.steps, 1))
    for problem in plan.problems:
        yield f"Problem: {problem}"


def document(plan: DeployPlan) -> Mapping[str, object]:
    """Return a plan as a document for programs."""
    return {
        "app_name": plan.app_name,
        "current_revision": plan.current_id,
        "changes": [
            {"name": change.name, "current": change.current, "planned": change.planned} for change in plan.changes
        ],
        "environment": {"env_id": plan.env_id, "built": plan.environment_built},
        "steps": list(plan.steps),
        "problems": list(plan.problems),
        "kept": plan.kept,
    }


def _difference(change: PlannedChange, *, new: bool) -> str:
    if new:
        return change.planned
    if not change.current or not change.planned:
        return f"{change.current or 'not set'} -> {change.planned or 'not set'}"
    before, after = change.current.split(", "), change.planned.split(", ")
    if max(len(before), len(after)) > 1:
        gone = [f"-{item}" for item in before if item not in after]
        come = [f"+{item}" for item in after if item not in before]
        if gone or come:
            return " ".join(gone + come)
    return f"{change.current} -> {change.planned}"
