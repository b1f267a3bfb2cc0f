"""The platform API operations that tools use, with permissions and arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fal_mcp.calls import JSON_BODY, Call, Refused, file_path, query_of, segment
from fal_mcp.schemas import BUCKETS, CURSOR, ENDPOINTS, LIMIT, PAGES, SPAN, TEXT, TIMEFRAME, Schema, described, several

_PLACE = re.compile(r"\{(\w+)\}")
# Path parameters that may contain slashes.
_FILES = frozenset({"dir", "file", "target_path"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation of the platform API.

    Attributes:
        id: its published name.
        path: below /v1, with its parameters in braces.
        permission: "" if it needs no key.
        query: the query parameters.
        body: the schema of the body, if it takes one.
    """

    id: str
    method: str
    path: str
    about: str
    permission: str
    query: Mapping[str, Schema] = field(default_factory=dict[str, Schema])
    required: tuple[str, ...] = ()
    body: bytes = b""

    @property
    def namespace(self) -> str:
        """The first part of its path."""
        return self.path.split("/")[1]

    @property
    def reads(self) -> bool:
        """Whether it is read-only."""
        return not self.permission.endswith(":write")

    @property
    def places(self) -> list[str]:
        """The names of its path parameters."""
        return _PLACE.findall(self.path)

    def call(self, given: Mapping[str, object]) -> Call:
        """Return the call with these arguments.

        Raises:
            Refused: one is missing.
        """
        lacking = [name for name in (*self.places, *self.required) if not given.get(name)]
        if lacking:
            raise Refused(400, f"{lacking[0]} is missing: {self.id} needs it")

        def part(found: re.Match[str]) -> str:
            text = str(given[found[1]])
            return file_path(text) if found[1] in _FILES else segment(text)

        query = {name: value for name, value in given.items() if name not in self.places}
        return Call(
            method=self.method,
            path="/v1" + _PLACE.sub(part, self.path),
            query=query_of(query),
            body=self.body,
            headers=JSON_BODY if self.body else {},
        )


_APP = "/serverless/apps/{owner}/{name}"
_LOGS: dict[str, Schema] = {
    "app_id": described(ENDPOINTS, "One or more of `owner/name`."),
    "request_id": described(TEXT, "Only lines that were written for this request."),
    "search": described(TEXT, "Only lines with this text."),
    "level": {
        "enum": ["debug", "info", "warning", "error", "critical"],
        "description": "Only lines of this level and above.",
    },
    "traceback": {"type": "boolean", "description": "Taken for compatibility: tracebacks are lines like others."},
    "job_id": described(TEXT, "Only lines of this runner."),
    "revision": described(TEXT, "Only lines of this revision."),
    "run_source": {"enum": ["grpc-run", "grpc-register", "gateway", "cron"], "description": "What wrote the line."},
    **SPAN,
    **PAGES,
}
LIST_APPS = Operation(
    id="serverlessListApps",
    method="GET",
    path="/serverless/apps",
    about="List the apps of an environment with their settings.",
    permission="serverless:apps:read",
    query={
        "environment": described(TEXT, "The environment, by default main."),
        "search": described(TEXT, "Only apps with this in their names."),
        "expand": several("endpoints", about="`endpoints` adds the endpoints of each app."),
    },
)
QUEUE_SIZE = Operation(
    id="serverlessGetAppQueueInfo",
    method="GET",
    path=f"{_APP}/queue",
    about="Say how many requests wait in the queue of an app.",
    permission="serverless:queue:read",
)
RUNNER_HISTORY = Operation(
    id="serverlessGetRunnerHistory",
    method="GET",
    path=f"{_APP}/runners/history",
    about="Say how many runners an app had over time, by state.",
    permission="serverless:runners:read",
    query={
        **SPAN,
        "timeframe": TIMEFRAME,
        "aggregation": {"enum": ["max", "avg"], "description": "The most at a time in a bucket, or the mean."},
    },
)
EVENTS = Operation(
    id="serverlessListAppEvents",
    method="GET",
    path=f"{_APP}/events",
    about="List what happened to an app: deploys, changes of settings, steps in the lives of runners.",
    permission="serverless:apps:read",
    query={**SPAN, "category": described(TEXT, "Only these, with commas between, such as runner_failed."), **PAGES},
)
REVISIONS = Operation(
    id="serverlessListAppRevisions",
    method="GET",
    path=f"{_APP}/revisions",
    about="List the revisions of an app, the newest first: when, by which key, and whether its runners became ready.",
    permission="serverless:revisions:read",
    query=PAGES,
)
LIST_ROOT = Operation(
    id="serverlessListRoot",
    method="GET",
    path="/serverless/files/list",
    about="List the files at the top of /data.",
    permission="serverless:files:read",
)
LIST_DIRECTORY = Operation(
    id="serverlessListDirectory",
    method="GET",
    path="/serverless/files/list/{dir}",
    about="List the files of a directory of /data.",
    permission="serverless:files:read",
)
READ_FILE = Operation(
    id="serverlessDownloadFile",
    method="GET",
    path="/serverless/files/file/{file}",
    about="Read a file of /data.",
    permission="serverless:files:read",
)
LOGS = Operation(
    id="serverlessLogsHistory",
    method="POST",
    path="/serverless/logs/history",
    about="Search the log lines of builds and runners.",
    permission="serverless:logs:read",
    query=_LOGS,
    body=b"[]",
)
REQUESTS = Operation(
    id="serverlessListRequestsByEndpoint",
    method="GET",
    path="/serverless/requests/by-endpoint",
    about="List requests that have ended: status, times, runner, kind of error.",
    permission="serverless:requests:read",
    query={
        "endpoint_id": ENDPOINTS,
        "status": {"enum": ["success", "error", "user_error"], "description": "How they ended."},
        "request_id": described(TEXT, "Only this request."),
        "sort_by": {"enum": ["ended_at", "duration"], "description": "The last first, or the longest first."},
        "expand": several("payloads", "billing", about="Further fields."),
        **SPAN,
        **PAGES,
    },
    required=("endpoint_id",),
)
ANALYTICS = Operation(
    id="serverlessGetAnalytics",
    method="GET",
    path="/serverless/analytics",
    about="Count requests and errors over time, with quantiles of durations and of cold starts.",
    permission="serverless:requests:read",
    query={
        "endpoint_id": ENDPOINTS,
        "expand": {
            "anyOf": [TEXT, {"type": "array", "items": TEXT}],
            "description": "`time_series`, `summary`, and numbers such as request_count, error_count, "
            "timeout_error_count, startup_error_count, p50_duration, p95_duration, p50_prepare_duration and "
            "cold_boot_count.",
        },
        **BUCKETS,
    },
    required=("endpoint_id",),
)
USAGE = Operation(
    id="serverlessGetUsage",
    method="GET",
    path="/serverless/usage",
    about="Say how many seconds of machines apps used. A controller has no prices: costs are 0.",
    permission="billing:read",
    query={
        "app": described(TEXT, "Only these apps, by name, with commas between."),
        "search": described(TEXT, "Only apps with this in their names."),
        "expand": several("time_series", "summary", about="What to return, by default time_series."),
        **BUCKETS,
    },
)
OPERATIONS = (
    LIST_APPS,
    QUEUE_SIZE,
    Operation(
        id="serverlessFlushAppQueue",
        method="DELETE",
        path=f"{_APP}/queue",
        about="Cancel all requests that wait in the queue of an app.",
        permission="serverless:queue:write",
    ),
    RUNNER_HISTORY,
    EVENTS,
    REVISIONS,
    LIST_ROOT,
    LIST_DIRECTORY,
    READ_FILE,
    Operation(
        id="serverlessUploadFromUrl",
        method="POST",
        path="/serverless/files/file/url/{file}",
        about="Store a file that is at a URL in /data.",
        permission="serverless:files:write",
    ),
    Operation(
        id="serverlessUploadLocalFile",
        method="POST",
        path="/serverless/files/file/local/{target_path}",
        about="Store a file in /data.",
        permission="serverless:files:write",
    ),
    Operation(
        id="serverlessGetMetrics",
        method="GET",
        path="/serverless/metrics",
        about="Return all numbers of runners and requests in the form of Prometheus.",
        permission="serverless:metrics:read",
    ),
    LOGS,
    REQUESTS,
    ANALYTICS,
    USAGE,
    Operation(
        id="listApiKeys",
        method="GET",
        path="/keys",
        about="List the keys that may call apps, without their secrets.",
        permission="keys:read",
        query={"limit": LIMIT, "cursor": CURSOR, "expand": several("creator_info", about="Who made each.")},
    ),
    Operation(id="createApiKey", method="POST", path="/keys", about="Make a key.", permission="keys:write"),
    Operation(
        id="deleteApiKey", method="DELETE", path="/keys/{key_id}", about="Revoke a key.", permission="keys:write"
    ),
    Operation(id="getMeta", method="GET", path="/meta", about="Describe the API.", permission=""),
)
"""All operations, except the stream of log lines, which has no end."""
