"""Creates, lists and revokes a key."""

from functools import partial

from fal.api import SyncServerlessClient
from fal.sdk import KeyScope

say = partial(print, ">")  # the test compares these lines alone

client = SyncServerlessClient()
made = client.keys.create(scope=KeyScope.API, description="of a program")
say(type(made).__name__, [type(part).__name__ for part in made])
mine = [key for key in client.keys.list() if key.key_id == made[0]]
say([(type(key).__name__, key.alias, key.scope, type(key.created_at).__name__) for key in mine])
say(client.keys.revoke(made[0]))
say([key for key in client.keys.list() if key.key_id == made[0]])
