"""The permission that each route needs."""

from __future__ import annotations

from enum import Enum


class Admission(Enum):
    """Which callers are admitted to a route without a single permission."""

    ANYONE = "needs no key: the answer is public, or the path holds an id that cannot be guessed"
    UPLOADING_KEYS = "a key that may write files or call apps"
    UPLOADERS = "such a key, an upload token, or a runner's key"
    CALLERS_OF_THE_METHOD = "whoever may call the method over gRPC"
    CALLERS_OF_THE_ROUTES = "any key: each call that a tool makes needs what its own route or method needs"
    CALLERS_OF_THE_APP = "anyone if the app is public, otherwise a key that may call apps"


# By method and path. The controller does not start if a route has no row.
ROUTE_PERMISSIONS: dict[tuple[str, str], str | Admission] = {
    ("GET", "/"): Admission.ANYONE,
    ("GET", "/.well-known/jwks.json"): Admission.ANYONE,
    ("GET", "/health"): Admission.ANYONE,
    # The contract, whose methods have a table of their own, and its description.
    ("POST", "/fal.v1.{service}/{method}"): Admission.CALLERS_OF_THE_METHOD,
    ("GET", "/openapi.json"): Admission.ANYONE,
    ("GET", "/llms.txt"): Admission.ANYONE,
    # The account, runners and their logs.
    ("GET", "/applications/metrics"): "serverless:metrics:read",
    ("GET", "/metrics"): "serverless:metrics:read",
    ("GET", "/v1/serverless/metrics"): "serverless:metrics:read",
    ("GET", "/applications/{owner}/{app}/metadata"): "serverless:apps:read",
    ("GET", "/runners/{runner_id}"): "serverless:runners:read",
    ("GET", "/users/current"): "account:read",
    ("GET", "/users/teams"): "account:read",
    ("POST", "/logs/history"): "serverless:logs:read",
    ("POST", "/logs/stream"): "serverless:logs:read",
    ("POST", "/tokens"): "serverless:apps:run",
    ("POST", "/tokens/"): "serverless:apps:run",
    # The queue.
    ("GET", "/queue/{rest:path}"): Admission.CALLERS_OF_THE_APP,
    ("POST", "/queue/{rest:path}"): Admission.CALLERS_OF_THE_APP,
    ("PUT", "/queue/{rest:path}"): Admission.CALLERS_OF_THE_APP,
    ("GET", "/applications/{nickname}/{app}/queue"): "serverless:queue:read",
    ("DELETE", "/applications/{nickname}/{app}/queue"): "serverless:queue:write",
    ("POST", "/applications/{nickname}/{app}/queue/redrive"): "serverless:queue:write",
    ("GET", "/applications/{nickname}/{app}/queue/requests"): "serverless:queue:read",
    ("GET", "/applications/{nickname}/{app}/queue/requests/{request_id}"): "serverless:queue:read",
    ("POST", "/applications/{nickname}/{app}/queue/requests/{request_id}/cancel"): "serverless:queue:write",
    ("POST", "/applications/{nickname}/{app}/queue/requests/{request_id}/redrive"): "serverless:queue:write",
    # Workflows, and their runs directly and through the queue.
    ("GET", "/workflows/"): "serverless:apps:read",
    ("POST", "/workflows/"): "serverless:apps:write",
    ("GET", "/workflows/{owner}/{name}"): "serverless:apps:read",
    ("PATCH", "/workflows/{owner}/{name}"): "serverless:apps:write",
    ("DELETE", "/workflows/{owner}/{name}"): "serverless:apps:write",
    ("POST", "/workflows/{owner}/{name}"): "serverless:apps:run",
    ("POST", "/workflows/{owner}/{name}/stream"): "serverless:apps:run",
    ("POST", "/queue/workflows/{owner}/{name}"): "serverless:apps:run",
    ("GET", "/queue/workflows/{owner}/{name}/requests/{run_id}"): "serverless:apps:run",
    ("GET", "/queue/workflows/{owner}/{name}/requests/{run_id}/"): "serverless:apps:run",
    ("GET", "/queue/workflows/{owner}/{name}/requests/{run_id}/status"): "serverless:apps:run",
    ("GET", "/queue/workflows/{owner}/{name}/requests/{run_id}/status/"): "serverless:apps:run",
    ("PUT", "/queue/workflows/{owner}/{name}/requests/{run_id}/cancel"): "serverless:apps:run",
    ("PUT", "/queue/workflows/{owner}/{name}/requests/{run_id}/cancel/"): "serverless:apps:run",
    # The dashboard, whose pages show the same data as calls with these permissions.
    ("GET", "/ui"): Admission.ANYONE,
    ("GET", "/ui/login"): Admission.ANYONE,
    ("POST", "/ui/login"): Admission.ANYONE,
    ("POST", "/ui/logout"): Admission.ANYONE,
    ("GET", "/ui/static/{name}"): Admission.ANYONE,
    ("GET", "/ui/"): "serverless:apps:read",
    ("GET", "/ui/apps"): "serverless:apps:read",
    ("GET", "/ui/apps/{app}"): "serverless:apps:read",
    ("POST", "/ui/apps/{app}/scale"): "serverless:apps:write",
    ("POST", "/ui/apps/{app}/revision"): "serverless:apps:write",
    ("GET", "/ui/apps/{app}/revisions/{revision_id}"): "serverless:revisions:read",
    ("GET", "/ui/apps/{app}/simulate"): "serverless:apps:read",
    ("POST", "/ui/apps/{app}/simulate"): "serverless:apps:read",
    ("POST", "/ui/apps/{app}/rollout"): "serverless:apps:write",
    ("POST", "/ui/apps/{app}/flush"): "serverless:queue:write",
    ("POST", "/ui/apps/{app}/redrive"): "serverless:queue:write",
    ("GET", "/ui/apps/{app}/logs"): "serverless:logs:read",
    ("GET", "/ui/apps/{app}/follow"): "serverless:logs:read",
    ("GET", "/ui/apps/{app}/playground"): "serverless:apps:run",
    ("GET", "/ui/apps/{app}/playground/{endpoint:path}"): "serverless:apps:run",
    ("POST", "/ui/apps/{app}/playground"): "serverless:apps:run",
    ("POST", "/ui/apps/{app}/playground/token"): "serverless:apps:run",
    ("GET", "/ui/requests"): "serverless:requests:read",
    ("GET", "/ui/apps/{app}/requests"): "serverless:requests:read",
    ("GET", "/ui/apps/{app}/requests/{request_id}"): "serverless:requests:read",
    ("POST", "/ui/apps/{app}/requests/{request_id}/cancel"): "serverless:queue:write",
    ("GET", "/ui/keys"): "keys:read",
    ("POST", "/ui/keys"): "keys:write",
    ("POST", "/ui/keys/{key_id}/revoke"): "keys:write",
    ("GET", "/ui/secrets"): "serverless:secrets:read",
    ("POST", "/ui/secrets"): "serverless:secrets:write",
    ("POST", "/ui/secrets/{name}/unset"): "serverless:secrets:write",
    ("GET", "/ui/environments"): "serverless:environments:read",
    ("POST", "/ui/environments"): "serverless:environments:write",
    ("POST", "/ui/environments/{name}/delete"): "serverless:environments:write",
    ("GET", "/ui/drains"): "drains:read",
    ("POST", "/ui/drains"): "drains:write",
    ("POST", "/ui/drains/{name}/delete"): "drains:write",
    ("POST", "/ui/drains/{name}/pause"): "drains:write",
    ("POST", "/ui/drains/{name}/resume"): "drains:write",
    ("GET", "/ui/notices"): "notices:read",
    ("POST", "/ui/notices"): "notices:write",
    ("POST", "/ui/notices/{name}/delete"): "notices:write",
    ("POST", "/ui/notices/{name}/test"): "notices:write",
    ("GET", "/ui/accounts"): "account:read",
    ("POST", "/ui/accounts"): "controller:accounts:write",
    ("GET", "/ui/audit"): "audit:read",
    ("GET", "/ui/nodes"): "serverless:runners:read",
    ("GET", "/ui/runners"): "serverless:runners:read",
    ("GET", "/ui/runners/{runner_id}"): "serverless:runners:read",
    ("GET", "/ui/runners/{runner_id}/follow"): "serverless:logs:read",
    ("GET", "/ui/runners/{runner_id}/shell"): "serverless:runners:exec",
    ("GET", "/ui/runners/{runner_id}/shell/socket"): "serverless:runners:exec",
    ("POST", "/ui/runners/{runner_id}/stop"): "serverless:runners:write",
    ("POST", "/ui/runners/{runner_id}/kill"): "serverless:runners:write",
    # /data.
    ("GET", "/files/list/{path:path}"): "serverless:files:read",
    ("GET", "/files/file/{path:path}"): "serverless:files:read",
    ("POST", "/files/dir/check_hash/{path:path}"): "serverless:files:read",
    ("POST", "/files/file/local/{path:path}"): "serverless:files:write",
    ("POST", "/files/file/url/{path:path}"): "serverless:files:write",
    ("DELETE", "/files/file/{path:path}"): "serverless:files:write",
    ("POST", "/files/rename/{path:path}"): "serverless:files:write",
    ("POST", "/files/file/multipart/{path:path}/initiate"): "serverless:files:write",
    ("PUT", "/files/file/multipart/{path:path}/{upload_id:str}/{number:str}"): "serverless:files:write",
    ("POST", "/files/file/multipart/{path:path}/{upload_id:str}/complete"): "serverless:files:write",
    ("POST", "/files/file/multipart/{path:path}/{upload_id:str}/cancel"): "serverless:files:write",
    # The files of apps, sent before a deploy.
    ("POST", "/files/missing_hashes"): "serverless:revisions:write",
    ("POST", "/files/app/multipart/{hash}/initiate"): "serverless:revisions:write",
    ("PUT", "/files/app/multipart/{hash}/{upload_id}/{number}"): "serverless:revisions:write",
    ("POST", "/files/app/multipart/{hash}/{upload_id}/complete"): "serverless:revisions:write",
    ("POST", "/files/app/multipart/{hash}/{upload_id}/cancel"): "serverless:revisions:write",
    # The documentation, which is the same for all.
    ("GET", "/docs"): Admission.ANYONE,
    ("GET", "/docs/{path:path}"): Admission.ANYONE,
    # Files with a public address.
    ("POST", "/storage/auth/token"): Admission.UPLOADING_KEYS,
    ("POST", "/storage/upload/initiate"): Admission.UPLOADERS,
    ("POST", "/storage/upload/initiate-multipart"): Admission.UPLOADERS,
    ("POST", "/files/upload"): Admission.UPLOADERS,
    ("POST", "/files/upload/multipart"): Admission.UPLOADERS,
    ("PUT", "/storage/upload/{upload_id}"): Admission.ANYONE,
    ("POST", "/storage/upload/{upload_id}/complete"): Admission.ANYONE,
    ("PUT", "/storage/upload/{upload_id}/{number}"): Admission.ANYONE,
    ("POST", "/storage/upload/{upload_id}/{number}"): Admission.ANYONE,
    ("POST", "/storage/f/{object_id}/{name}/multipart/{upload_id}/complete"): Admission.ANYONE,
    ("PUT", "/storage/f/{object_id}/{name}/multipart/{upload_id}/{number}"): Admission.ANYONE,
    ("GET", "/storage/f/{object_id}/{name}"): Admission.ANYONE,
    # The published platform API.
    ("GET", "/v1/serverless/apps"): "serverless:apps:read",
    ("GET", "/v1/serverless/apps/{owner}/{app}/events"): "serverless:apps:read",
    ("GET", "/v1/serverless/apps/{owner}/{app}/queue"): "serverless:queue:read",
    ("DELETE", "/v1/serverless/apps/{owner}/{app}/queue"): "serverless:queue:write",
    ("GET", "/v1/serverless/apps/{owner}/{app}/revisions"): "serverless:revisions:read",
    ("GET", "/v1/serverless/files/list"): "serverless:files:read",
    ("GET", "/v1/serverless/files/list/{path:path}"): "serverless:files:read",
    ("GET", "/v1/serverless/files/file/{path:path}"): "serverless:files:read",
    ("POST", "/v1/serverless/files/file/local/{path:path}"): "serverless:files:write",
    ("POST", "/v1/serverless/files/file/url/{path:path}"): "serverless:files:write",
    ("POST", "/v1/serverless/logs/history"): "serverless:logs:read",
    ("POST", "/v1/serverless/logs/stream"): "serverless:logs:read",
    ("GET", "/v1/serverless/requests/by-endpoint"): "serverless:requests:read",
    ("GET", "/v1/serverless/analytics"): "serverless:requests:read",
    ("GET", "/v1/serverless/apps/{owner}/{app}/runners/history"): "serverless:runners:read",
    ("GET", "/v1/serverless/usage"): "billing:read",
    ("GET", "/v1/keys"): "keys:read",
    ("POST", "/v1/keys"): "keys:write",
    ("DELETE", "/v1/keys/{key_id}"): "keys:write",
    ("GET", "/v1/meta"): Admission.ANYONE,
    # Tools for agents, over the routes above and the contract.
    ("POST", "/v1/mcp/platform"): Admission.CALLERS_OF_THE_ROUTES,
    # Files of runners, on their unix socket.
    ("POST", "/v1/uploads"): Admission.UPLOADERS,
    ("GET", "/v1/uploads/{object_id}"): Admission.ANYONE,
    ("POST", "/v1/upload-sessions"): Admission.UPLOADERS,
    ("PUT", "/v1/upload-sessions/{upload_id}/body"): Admission.ANYONE,
    ("POST", "/v1/upload-sessions/{upload_id}/finish"): Admission.ANYONE,
    ("DELETE", "/v1/upload-sessions/{upload_id}"): Admission.ANYONE,
}

RUNNERS_SOCKET = frozenset(route for route in ROUTE_PERMISSIONS if route[1].startswith("/v1/upload"))
"""The routes of the runners' unix socket; all others belong to the controller's port."""

# Routes that a key for one app may use, too: files before a deploy, which only depend on their content, uploads, and
# tokens, which are checked when they are used.
OF_NO_APP = frozenset(
    {
        "/tokens",
        "/tokens/",
        *(path for _, path in ROUTE_PERMISSIONS if path.startswith(("/files/app/", "/files/missing_hashes"))),
        *(path for (_, path), needed in ROUTE_PERMISSIONS.items() if isinstance(needed, Admission)),
    }
)

# The steps of an upload change nothing; only its completion does.
_STEPS = ("/initiate", "/cancel", "/missing_hashes", "{number}", "{number:str}")
RECORDED_ROUTES = frozenset(
    (method, path)
    for (method, path), needed in ROUTE_PERMISSIONS.items()
    if isinstance(needed, str)
    and needed.endswith(":write")
    and (path.startswith(("/applications", "/ui/")) or not path.endswith(_STEPS))
) | {("GET", "/ui/runners/{runner_id}/shell/socket")}
"""The routes with a row in the audit log: all that change something, and the one that starts a shell."""
