"""The tools that open the rest of the API. They list its areas, search it, describe it and call its read-only parts."""

from __future__ import annotations

from collections.abc import Mapping

from fal_mcp.calls import Call, Platform, Refused, asked, asked_object, contract
from fal_mcp.operations import OPERATIONS, Operation
from fal_mcp.schemas import TEXT, Schema, arguments, described
from fal_mcp.tools import Arguments, Tool

# Methods of the contract with these prefixes change nothing; a test compares this with the audit log's records.
_READS = ("Get", "List", "Explain", "Simulate", "Verify")
NOT_SERVED = {
    "billing": "a controller has no prices and no bills",
    "compute": "a controller has no instances beside runners",
    "models": "a controller serves no models of the fal cloud",
    "organization": "Accounts has the accounts and teams of a controller",
}
_REFERENCE = "#/components/schemas/"
_MOST_FOUND = 20


async def _catalog(platform: Platform) -> tuple[dict[str, Operation], dict[str, dict[str, object]], object]:
    """Return the platform API's operations, the contract's methods, and their schemas. The methods are by name."""
    description = await asked_object(platform, Call(method="GET", path="/openapi.json"))
    methods: dict[str, dict[str, object]] = {}
    paths, parts = description.get("paths"), description.get("components")
    for item in paths.values() if isinstance(paths, dict) else ():
        method = item.get("post") if isinstance(item, dict) else None
        if isinstance(method, dict):
            methods[str(method["operationId"]).removeprefix("fal.v1.")] = method
    schemas = parts.get("schemas") if isinstance(parts, dict) else {}
    return {operation.id: operation for operation in OPERATIONS}, methods, schemas


def reads(method: str) -> bool:
    """Return whether a method of the contract, such as `Apps.ListAliases`, is read-only."""
    return method.partition(".")[2].startswith(_READS)


async def _namespaces(platform: Platform, given: Arguments) -> object:
    operations, methods, _ = await _catalog(platform)
    counts: dict[str, int] = {}
    for name in [each.namespace for each in operations.values()] + [each.partition(".")[0] for each in methods]:
        counts[name] = counts.get(name, 0) + 1
    return {
        "namespaces": [{"name": name, "operations": count} for name, count in counts.items()],
        "not_served": NOT_SERVED,
    }


async def _search(platform: Platform, given: Arguments) -> object:
    operations, methods, _ = await _catalog(platform)
    found = [_line(each.id, each.namespace, each.about, each.permission, each.reads) for each in operations.values()]
    for name, method in methods.items():
        found.append(_line(name, name.partition(".")[0], "", _needs(method), reads(name)))
    words = str(given.get("query", "")).casefold().split()
    ranked = sorted(((_hits(each, words), -place, each) for place, each in enumerate(found)), key=lambda one: one[:2])
    chosen = [each for hits, _, each in reversed(ranked) if hits or not words][:_MOST_FOUND]
    asks = [text for name, text in NOT_SERVED.items() if name in words]
    return {"operations": chosen, **({"not_served": asks} if asks else {})}


async def _describe(platform: Platform, given: Arguments) -> object:
    operation_id = str(given.get("operation_id", ""))
    operations, methods, schemas = await _catalog(platform)
    if operation_id in operations:
        found = operations[operation_id]
        places: dict[str, Schema] = dict.fromkeys(found.places, TEXT)
        return {
            **_line(found.id, found.namespace, found.about, found.permission, found.reads),
            "call": f"{found.method} /v1{found.path}",
            "arguments": arguments({**places, **found.query}, (*found.places, *found.required)),
        }
    method = _method(methods, operation_id)
    wanted: dict[str, object] = {}
    _collect(method.get("requestBody"), schemas, wanted)
    _collect(method.get("responses"), schemas, wanted)
    return {
        **_line(operation_id, operation_id.partition(".")[0], "", _needs(method), reads(operation_id)),
        "call": f"POST /fal.v1.{operation_id.replace('.', '/')}",
        "arguments": method.get("requestBody"),
        "answer": method.get("responses"),
        "schemas": wanted,
    }


async def _invoke(platform: Platform, given: Arguments) -> object:
    operation_id, values = str(given.get("operation_id", "")), given.get("arguments") or {}
    assert isinstance(values, Mapping)
    operations, methods, _ = await _catalog(platform)
    operation = operations.get(operation_id)
    if operation is None:
        _method(methods, operation_id)
    if not (reads(operation_id) if operation is None else operation.reads):
        raise Refused(403, f"{operation_id} changes something, and invoke_operation only reads")
    if operation is None:
        return await asked(platform, contract(operation_id, **values))
    call = operation.call(values)
    if operation.id == "serverlessGetMetrics":
        return (await platform.ask(call)).decode("utf-8", "replace")
    if operation.id == "serverlessDownloadFile":
        raise Refused(400, "read_file reads files, a part at a time")
    return await asked(platform, call)


def _method(methods: Mapping[str, dict[str, object]], name: str) -> dict[str, object]:
    if name not in methods:
        served = next((text for area, text in NOT_SERVED.items() if name.casefold().startswith(area)), None)
        raise Refused(404, f"there is no operation {name[:80]!r}: {served or 'search_operations finds them'}")
    return methods[name]


def _needs(method: Mapping[str, object]) -> str:
    """Return the permission that a method needs. A sentence in its summary names it."""
    return str(method.get("summary", "")).removeprefix("Needs ").rstrip(".")


def _line(name: str, namespace: str, about: str, permission: str, read_only: bool) -> dict[str, object]:
    return {
        "operation_id": name,
        "namespace": namespace,
        "about": about,
        "needs": permission or "any key",
        "read_only": read_only,
    }


def _hits(line: Mapping[str, object], words: list[str]) -> int:
    """Return how well a line matches some words. A match in a name counts more."""
    name, about = f"{line['operation_id']} {line['namespace']}".casefold(), str(line["about"]).casefold()
    stems = [word.rstrip("s") for word in words]
    return sum(3 * (stem in name) + (stem in about) for stem in stems)


def _collect(value: object, schemas: object, wanted: dict[str, object]) -> None:
    """Add every schema that a value refers to."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and isinstance(schemas, dict):
            name = reference.removeprefix(_REFERENCE)
            if name not in wanted and name in schemas:
                wanted[name] = schemas[name]
                _collect(schemas[name], schemas, wanted)
        for each in value.values():
            _collect(each, schemas, wanted)
    elif isinstance(value, list):
        for each in value:
            _collect(each, schemas, wanted)


_OPERATION: Schema = described(TEXT, "The name of the operation, as search_operations shows it.")
DISCOVERY = (
    Tool(
        name="list_namespaces",
        about="List the areas of the API with the number of their operations, and what a controller does not serve.",
        schema=arguments({}),
        run=_namespaces,
    ),
    Tool(
        name="search_operations",
        about="Find operations by words, such as `secrets` or `nodes`.",
        schema=arguments({"query": described(TEXT, "The words.")}, ["query"]),
        run=_search,
    ),
    Tool(
        name="describe_operation",
        about="Show the arguments of an operation, and what it answers.",
        schema=arguments({"operation_id": _OPERATION}, ["operation_id"]),
        run=_describe,
    ),
    Tool(
        name="invoke_operation",
        about="Carry out an operation that only reads. The key needs what describe_operation says.",
        schema=arguments(
            {"operation_id": _OPERATION, "arguments": {"type": "object", "description": "Its arguments."}},
            ["operation_id"],
        ),
        run=_invoke,
    ),
)
