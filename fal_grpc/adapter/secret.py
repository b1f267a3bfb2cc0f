"""Secrets of an environment. They can be written and listed, but not read back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import environment, flag, text, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import secret_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerlessSecret:
    """A secret, without its value.

    Attributes:
        created_at: when it was last written, aware; None if the controller does not say.
        default_exposed: whether apps that name no secrets get it; None means the account's default.
    """

    name: str
    created_at: datetime | None
    environment_name: str | None = None
    default_exposed: bool | None = None


def secrets(message: secret_pb2.ListSecretsResponse) -> list[ServerlessSecret]:
    return [
        ServerlessSecret(
            name=item.name,
            created_at=to_datetime(item.created_time) if item.HasField("created_time") else None,
            environment_name=item.environment_name if item.HasField("environment_name") else None,
            default_exposed=item.default_exposed if item.HasField("default_exposed") else None,
        )
        for item in message.secrets
    ]


def set_request(
    name: str, value: str, *, environment_name: str | None = None, default_exposed: bool | None = None
) -> secret_pb2.SetSecretRequest:
    """Return a request to write a secret, whose value may be empty.

    Raises:
        ArgumentError: the name is empty, or the value is not text.
    """
    from fal_grpc.v1 import secret_pb2

    return secret_pb2.SetSecretRequest(
        name=_name(name),
        value=_value(value),
        environment_name=environment(environment_name),
        default_exposed=None if default_exposed is None else flag("default_exposed", default_exposed),
    )


def unset_request(name: str, *, environment_name: str | None = None) -> secret_pb2.SetSecretRequest:
    """Return a request to delete a secret. On the wire, it is a secret without a value."""
    from fal_grpc.v1 import secret_pb2

    return secret_pb2.SetSecretRequest(name=_name(name), environment_name=environment(environment_name))


def list_request(environment_name: str | None = None) -> secret_pb2.ListSecretsRequest:
    from fal_grpc.v1 import secret_pb2

    return secret_pb2.ListSecretsRequest(environment_name=environment(environment_name))


def _name(name: object) -> str:
    return text("name", name, "must be the name of an environment variable, such as API_TOKEN")


def _value(value: object) -> str:
    if not isinstance(value, str):
        # Refuse None, too: on the wire it would delete the secret, for which there is another function.
        raise ArgumentError("value", f"must be text, not {type(value).__name__}; `unset` deletes a secret")
    return text("value", value, empty=True)
