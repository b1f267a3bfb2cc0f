"""Resolves host and credentials from arguments, environment and profile.

docs/reference/configuration.md has the table of precedence; its test reads both.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fal.config import Config, home_dir, load, truthy
from fal.hosts import base_url
from fal.login import access_token
from fal_grpc.channel import ChannelOptions, root_certificates
from fal_grpc.credentials import Credentials, KeyCredentials, NoCredentials, TokenCredentials
from fal_grpc.errors import ConfigError, MissingCredentialsError
from fal_grpc.failover import choose
from fal_grpc.target import Target, parse_targets

DEFAULT_HOST = "api.alpha.fal.ai"
DEFAULT_SOURCE = "default"
"""The source of a host that no setting chose."""
NO_SOURCE = "none"
"""The source of missing credentials."""
NO_CREDENTIALS = (
    'No key was found. `fal up` starts a controller here and makes one, `eval "$(fal env)"` takes it into this shell; '
    "or set FAL_KEY to a key of another controller, as KEY_ID:KEY_SECRET, or store it with `fal profile key`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The controller to call, and the credentials to use.

    Attributes:
        target: the controller.
        rest_url: the controller's HTTP address, without a slash at the end.
        account_url: the address for accounts and teams; FAL_REST_HOST overrides it.
        profile: the profile in use, if any.
        team: the team to act for, if any.
        environment_name: the default environment of commands (FAL_ENV); None means "main".
        sources: where `host`, `credentials`, `profile` and `team` came from, for people to read.
    """

    target: Target
    credentials: Credentials
    options: ChannelOptions
    rest_url: str
    account_url: str
    profile: str | None
    team: str | None
    environment_name: str | None
    sources: Mapping[str, str] = field(default_factory=dict)


def resolve(
    *,
    host: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
    team: str | None = None,
    needs_key: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Resolve the settings.

    Args:
        host: the controller, in a form that `parse_targets` reads.
        api_key: "KEY_ID:KEY_SECRET".
        profile: the profile to use.
        team: the team to act for; ignored with a key, which belongs to one team.
        needs_key: False allows missing credentials, for calls to public apps.
        environ: the environment variables.

    Raises:
        MissingCredentialsError: there are no credentials.
        ConfigError: the file or a setting is malformed.
    """
    config = load(environ=environ)
    chosen, chosen_by = find_profile(config, profile, environ)
    target, target_by = find_target(config, chosen, host, environ)
    try:
        found, credentials_by = find_credentials(config, chosen, api_key, environ)
    except MissingCredentialsError:
        if needs_key:
            raise
        found, credentials_by = NoCredentials(), NO_SOURCE
    acting, acting_by = (team, "argument") if team else (config.team, f"team in {config.path}")
    rest_url, account_url = find_rest_urls(target, environ)
    sources = {"host": target_by, "credentials": credentials_by}
    if chosen is not None:
        sources["profile"] = chosen_by
    if acting is not None:
        sources["team"] = acting_by
    return Settings(
        target=target,
        credentials=found,
        options=_options(environ, chosen, target_by, partial(_file, config, chosen, target_by)),
        rest_url=rest_url,
        account_url=account_url,
        profile=chosen,
        team=acting,
        environment_name=environ.get("FAL_ENV") or None,
        sources=sources,
    )


def find_profile(config: Config, profile: str | None, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the profile and its source. The order is argument, FAL_PROFILE, file."""
    if profile:
        return profile, "argument"
    if environ.get("FAL_PROFILE"):
        return environ["FAL_PROFILE"], "FAL_PROFILE"
    return config.current_profile, f"current profile in {config.path}"


def find_target(
    config: Config, profile: str | None, host: str | None, environ: Mapping[str, str]
) -> tuple[Target, str]:
    """Return the controller and its source. The order is argument, FAL_GRPC_HOST, FAL_HOST, profile, fal cloud."""
    plaintext: bool | None = None
    if "FAL_GRPC_TLS" in environ:
        plaintext = not truthy(environ, "FAL_GRPC_TLS")
    elif truthy(environ, "ISOLATE_TEST_MODE"):
        plaintext = True
    stored = None if profile is None else config.setting(profile, "host")
    candidates = (
        (host, "host"),
        (environ.get("FAL_GRPC_HOST"), "FAL_GRPC_HOST"),
        (environ.get("FAL_HOST"), "FAL_HOST"),
        (stored, _by_profile(profile)),
    )
    text, source = next(((text, source) for text, source in candidates if text), (DEFAULT_HOST, DEFAULT_SOURCE))
    targets = parse_targets(text, plaintext=plaintext, source=source)
    if len(targets) == 1:
        return targets[0], source
    options = _options(environ, profile, source, partial(_file, config, profile, source))
    return choose(targets, root_certificates(options, environ)), source


def find_rest_urls(target: Target, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the controller's HTTP address and the address for accounts. FAL_REST_HOST overrides the latter.

    Raises:
        ConfigError: FAL_REST_HOST is malformed.
    """
    rest_url = target.rest_url
    if truthy(environ, "ISOLATE_AUTH_DISABLED"):
        rest_url = rest_url.replace("https://", "http://", 1)
    account_host = environ.get("FAL_REST_HOST")
    return rest_url, base_url(account_host, target, environ, source="FAL_REST_HOST") if account_host else rest_url


def find_credentials(
    config: Config, profile: str | None, api_key: str | None, environ: Mapping[str, str]
) -> tuple[Credentials, str]:
    """Return the credentials and their source.

    The order is: argument, FAL_KEY, the profile's key, a Colab secret, FAL_KEY_ID with FAL_KEY_SECRET, login token.

    Raises:
        MissingCredentialsError: there are none.
        ConfigError: the first ones found are malformed. Later ones are not tried, so that a typing error is noticed.
    """
    if api_key:
        return KeyCredentials.parse(api_key, source="api_key"), "argument"
    if truthy(environ, "ISOLATE_AUTH_DISABLED"):
        return NoCredentials(), "ISOLATE_AUTH_DISABLED"
    if not truthy(environ, "FAL_FORCE_AUTH_BY_USER"):
        stored = None if profile is None else config.setting(profile, "key")
        candidates = (
            (environ.get("FAL_KEY"), "FAL_KEY"),
            (stored, f"key of profile {profile!r}"),
            (_colab_secret(), "Colab secret FAL_KEY"),
        )
        for text, source in candidates:
            if text:
                return KeyCredentials.parse(text, source=source), source
        key_id, secret = environ.get("FAL_KEY_ID"), environ.get("FAL_KEY_SECRET")
        if key_id and secret:
            source = "FAL_KEY_ID and FAL_KEY_SECRET"
            return KeyCredentials.parse(f"{key_id}:{secret}", source=source), source
    token = access_token(home_dir(environ))
    if token is not None:
        return TokenCredentials(token), f"login token in {home_dir(environ)}"
    raise MissingCredentialsError(_no_credentials(config, profile))


def _no_credentials(config: Config, profile: str | None) -> str:
    """Say what to do without credentials. If profiles are there and none is in use, that is to take one."""
    names = sorted(name for name in config.profiles if config.setting(name, "key"))
    if profile is not None or not names:
        return NO_CREDENTIALS
    others = ", `fal profile list` shows the others" if names[1:] else ""
    return (
        f"No key was found, since no profile is current: `fal profile set {names[0]}` takes its key{others}; "
        "or set FAL_KEY to a key, as KEY_ID:KEY_SECRET."
    )


def _file(config: Config, profile: str | None, target_by: str, name: str) -> Path | None:
    """Return a TLS file of the profile, if any. The profile must also name the host."""
    if profile is None or target_by != _by_profile(profile):
        return None
    path = config.setting(profile, name)
    return None if path is None else Path(path).expanduser()


def _by_profile(profile: str | None) -> str:
    return f"host of profile {profile!r}"


def _named_by(profile: str | None, target_by: str) -> str:
    """Return what has the controller's address, for people to change it."""
    if target_by == _by_profile(profile):
        return f"profile {profile!r} (`fal profile host` changes it)"
    return {"host": "the argument host", DEFAULT_SOURCE: "no setting (FAL_HOST names another)"}.get(
        target_by, target_by
    )


def _options(
    environ: Mapping[str, str], profile: str | None, target_by: str, file_of: Callable[[str], Path | None]
) -> ChannelOptions:
    own, key = environ.get("FAL_CLIENT_CERT_FILE"), environ.get("FAL_CLIENT_KEY_FILE")
    # Certificate and key come from one source, because they belong together.
    options = ChannelOptions(
        root_certificates=file_of("ca_file"),
        client_certificate=Path(own) if own else file_of("client_cert_file"),
        client_key=(Path(key) if key else None) if own else file_of("client_key_file"),
        start_command=_start_command(file_of("state_dir"), environ),
        named_by=_named_by(profile, target_by),
    )
    if key and not own:
        raise ConfigError("FAL_CLIENT_KEY_FILE is set without FAL_CLIENT_CERT_FILE: name the certificate too")
    text = environ.get("FAL_GRPC_TIMEOUT")
    if not text:
        return options
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ConfigError(f"FAL_GRPC_TIMEOUT must be a number of seconds above 0, not {text!r}")
    return replace(options, deadline_seconds=seconds)


def _start_command(state_dir: Path | None, environ: Mapping[str, str]) -> str:
    """Return what starts the controller of a profile. It is `fal up`, unless the profile is of another directory."""
    usual = Path(environ.get("FAL_STATE_DIR") or "~/.fal/controller").expanduser()
    if state_dir is None or state_dir == usual.absolute():
        return "fal up"
    return f"fal up -d --state-dir {shlex.quote(str(state_dir))}"


def _colab_secret() -> str | None:
    """Return the secret FAL_KEY of a Colab notebook. None if there is none or the notebook may not read it."""
    colab = sys.modules.get("google.colab")
    userdata = getattr(colab, "userdata", None)
    if userdata is None:
        return None
    try:
        secret: object = userdata.get("FAL_KEY")
    except Exception:  # noqa: BLE001  # Colab raises its own errors for "not there" and "not allowed"
        return None
    return secret.strip() if isinstance(secret, str) else None
