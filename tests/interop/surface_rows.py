"""The rows of a table. Each is a name of the published package that ours lacks, and why.

`tests.interop.test_surface` fails for a difference without a row, and for a row without a difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

MODULES = (
    "fal",
    "fal.api",
    "fal.api.api",
    "fal.api.apps",
    "fal.api.client",
    "fal.api.deploy",
    "fal.api.environments",
    "fal.api.keys",
    "fal.api.run",
    "fal.api.runners",
    "fal.api.secrets",
    "fal.app",
    "fal.apps",
    "fal.container",
    "fal.distributed",
    "fal.distributed.utils",
    "fal.distributed.worker",
    "fal.exceptions",
    "fal.exceptions.auth",
    "fal.exceptions.gpu",
    "fal.flags",
    "fal.realtime",
    "fal.sdk",
    "fal.sync",
    "fal.toolkit",
    "fal.toolkit.audio",
    "fal.toolkit.audio.audio",
    "fal.toolkit.compilation",
    "fal.toolkit.constraints",
    "fal.toolkit.exceptions",
    "fal.toolkit.file",
    "fal.toolkit.file.file",
    "fal.toolkit.file.providers",
    "fal.toolkit.file.providers.fal",
    "fal.toolkit.file.providers.gcp",
    "fal.toolkit.file.providers.local",
    "fal.toolkit.file.providers.r2",
    "fal.toolkit.file.providers.s3",
    "fal.toolkit.file.types",
    "fal.toolkit.image",
    "fal.toolkit.image.image",
    "fal.toolkit.image.nsfw_filter",
    "fal.toolkit.image.nsfw_filter.env",
    "fal.toolkit.image.nsfw_filter.inference",
    "fal.toolkit.image.nsfw_filter.model",
    "fal.toolkit.image.safety_checker",
    "fal.toolkit.kv",
    "fal.toolkit.pydantic",
    "fal.toolkit.types",
    "fal.toolkit.utils",
    "fal.toolkit.utils.download_utils",
    "fal.toolkit.utils.endpoint",
    "fal.toolkit.utils.retry",
    "fal.toolkit.utils.setup_utils",
    "fal.toolkit.video",
    "fal.toolkit.video.video",
    "fal.workflows",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Differences with a common reason.

    Attributes:
        module: a module, or a pattern such as `fal.exceptions.*`.
        names: names in it, or patterns.
        reason: for users, with an alternative.
    """

    module: str
    names: tuple[str, ...]
    reason: str

    def covers(self, module: str, name: str) -> bool:
        """Return whether a difference is one of these."""
        return fnmatchcase(module, self.module) and any(fnmatchcase(name, pattern) for pattern in self.names)


ROWS = (
    Row(module="fal", names=("version_tuple",), reason="It is the version of this package."),
    Row(
        module="fal.app",
        names=("App", "App.host_kwargs"),
        reason="Options are attributes of the class here; `host_kwargs` of a derived class has those that are set.",
    ),
    Row(
        module="fal.app",
        names=("App.run_local",),
        reason="It takes the two ports only: an app has no other arguments.",
    ),
    Row(
        module="fal.app",
        names=("App.local_file_path", "App.isolate_channel", "open_isolate_channel"),
        reason="They belong to the service's own agent, which runners here do not have.",
    ),
    Row(
        module="fal.app",
        names=("RequestContext", "RequestContext.upload_policy"),
        reason="Files go to the app's repository; a caller's own bucket (`x-app-fal-upload-policy`) is not used.",
    ),
    Row(
        module="fal.app",
        names=("wrap_app", "DEFAULT_PLATFORM_STARTUP_TIMEOUT", "REALTIME_APP_REQUIREMENTS", "PART_FINDER_RE", "logger"),
        reason="They are steps of the published client's own deploy; use `fal deploy`, `App.spawn` or `fal.deploy`.",
    ),
    Row(
        module="fal.app",
        names=("WMA_APP_REQUIREMENTS",),
        reason="Apps over WebRTC (`fal.wma`) are not served.",
    ),
    Row(
        module="fal.apps",
        names=("RequestHandle", "RequestHandle.iter_events"),
        reason="Private arguments: the HTTP client, and the pause between polls, which is `poll_seconds` here.",
    ),
    Row(
        module="fal.container",
        names=("ContainerImage", "ContainerImage.context_dir"),
        reason="The default is the directory when the image is made, not when `fal` was imported.",
    ),
    Row(
        module="fal.container",
        names=("DockerfileParser", "DockerignoreHandler"),
        reason="They are steps within `ContainerImage`: use `get_copy_add_sources` and `to_dict`.",
    ),
    Row(
        module="fal.distributed.*",
        names=("DistributedRunner.get_zmq_socket", "DistributedRunner.close_zmq_socket", "DistributedRunner.run"),
        reason="The processes talk through pipes, not through ZeroMQ, which apps then need not install.",
    ),
    Row(
        module="fal.distributed.utils",
        names=("wrap_distributed_worker",),
        reason="It is a step of `launch_distributed_processes`.",
    ),
    Row(
        module="fal.exceptions",
        names=("FileTooLargeError*", "RequestCancelledException*"),
        reason="The default messages differ.",
    ),
    Row(
        module="fal.exceptions.*",
        names=("*",),
        reason="All exceptions are in `fal.exceptions`: import them from there.",
    ),
    Row(
        module="fal.realtime",
        names=("*",),
        reason="`fal.realtime` is the decorator: use it as `@fal.realtime`. Messages are packed with msgpack.",
    ),
    Row(
        module="fal.api.client",
        names=("*Namespace",),
        reason="They are in `fal.api`; the client loads each when it is first used.",
    ),
    Row(
        module="fal.sdk",
        names=(
            *("AliasInfo", "Application*", "EnvironmentInfo", "MachineRequirements*", "RunnerInfo", "ServerlessSecret"),
            *("ServiceURLs", "UserKeyInfo"),
        ),
        reason="The client makes them, from named values; they are read in the same way.",
    ),
    Row(
        module="fal.sdk",
        names=("Credentials", "FalServerlessKeyCredentials*", "*erverCredentials", "*server_credentials"),
        reason="Credentials are a key, a login token or none; give `api_key` to `fal.api.SyncServerlessClient`.",
    ),
    Row(
        module="fal.sdk",
        names=("AuthenticatedCredentials", "LocalCredentials", "RemoteCredentials", "get_agent_credentials"),
        reason="They are the service's own login and agent, which a controller here does not have.",
    ),
    Row(
        module="fal.sdk",
        names=(
            *("FalServerlessClient", "FalServerlessConnection", "BuildEnvironmentResult", "Hosted*", "Register*"),
            *("File", "WorkerStatus", "UNSET", "InputT", "ResultT", "logger"),
        ),
        reason="Use `fal.api.SyncServerlessClient`; `client.controller()` has what its namespaces lack.",
    ),
    Row(
        module="fal.sdk",
        names=("ALIAS_AUTH_MODES", "DEPLOYMENT_STRATEGIES", "ENVIRONMENT_SEPARATOR", "FAL_SERVERLESS_*", "*Literal"),
        reason="They are values of the published client's checks; our message lists the allowed values.",
    ),
    Row(
        module="fal.sdk",
        names=("construct_alias", "deconstruct_alias", "RetryConfigDict", "validate_retry_config_dict"),
        reason="`environment_name` names the environment, and `retry_config` is checked when it is set.",
    ),
    Row(
        module="fal",
        names=("FalServerlessKeyCredentials",),
        reason="It is in `fal.sdk`; or give `api_key` to `fal.api.SyncServerlessClient`.",
    ),
    Row(
        module="fal.api.api",
        names=("*",),
        reason="It is internal to the published client: `fal`, `fal.api` and `fal.deploy` have what programs use.",
    ),
    Row(
        module="fal.api.client",
        names=("SyncServerlessClient.deploy",),
        reason="It names its arguments: `app_ref`, and keywords.",
    ),
    Row(
        module="fal.api.deploy",
        names=("*",),
        reason="Call `client.deploy(...)`; its types and limits are in `fal.deploy`.",
    ),
    Row(
        module="fal.api.run",
        names=("*",),
        reason="Call `fal.deploy.run(client, ...)`, or `submit` of a function.",
    ),
    Row(
        module="fal.api.apps",
        names=("*",),
        reason="These functions are internal: call the methods of `client.apps`.",
    ),
    Row(module="fal.api.environments", names=("*",), reason="Call the methods of `client.environments`."),
    Row(module="fal.api.keys", names=("*",), reason="Call the methods of `client.keys`."),
    Row(module="fal.api.runners", names=("*",), reason="Call the methods of `client.runners`."),
    Row(module="fal.api.secrets", names=("*",), reason="Call the methods of `client.secrets`."),
    Row(module="fal.toolkit.audio.audio", names=("*",), reason="Import it from `fal.toolkit.audio`."),
    Row(module="fal.toolkit.video.video", names=("*",), reason="Import it from `fal.toolkit.video`."),
    Row(
        module="fal.toolkit.image.nsfw_filter.*",
        names=("*",),
        reason="Import it from `fal.toolkit.image.nsfw_filter`.",
    ),
    Row(
        module="fal.toolkit.file.providers.fal",
        names=("*.save",),
        reason="The first argument is called `data` in every repository.",
    ),
    Row(
        module="fal.toolkit.file.providers.fal",
        names=(
            *("*.auth_headers", "FalV[23]Token*", "fal_v[23]_token_manager", "Internal*", "MultipartUpload*"),
            *("BASE_DELAY", "MAX_*", "*_TIMEOUT", "RETRY_CODES", "Variable*"),
        ),
        reason="They belong to the service's protocol. The platform takes a file in one piece, with the runner's key.",
    ),
    Row(
        module="fal.toolkit.file.providers.local",
        names=("reserve_with_policy", "save_with_policy"),
        reason="A caller's own bucket (`x-app-fal-upload-policy`) is not used.",
    ),
    Row(
        module="fal.toolkit*",
        names=("TEMP_HEADERS", "ssrf_safe_get"),
        reason="They are steps of downloads: use `download_file` or `read_image_from_url`.",
    ),
    Row(
        module="fal.toolkit.kv",
        names=("FAL_KV_HOST", "KVStore.auth_headers"),
        reason="Stores are files in /data: there is no host.",
    ),
    Row(
        module="fal.workflows",
        names=("JSONType", "SchemaType"),
        reason="They are the names of types, and are texts here when a program runs.",
    ),
)
