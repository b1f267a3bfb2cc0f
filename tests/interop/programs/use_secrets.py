"""Sets, lists and unsets secrets."""

from functools import partial

from fal.api import SyncServerlessClient

say = partial(print, ">")  # the test compares these lines alone

client = SyncServerlessClient()
say(client.secrets.set("OF_A_PROGRAM", "a value"))
mine = [secret for secret in client.secrets.list() if secret.name == "OF_A_PROGRAM"]
say([(type(secret).__name__, secret.name, type(secret.created_at).__name__) for secret in mine])
say(client.secrets.set("OF_A_PROGRAM", "another value"))
say(client.secrets.unset("OF_A_PROGRAM"))
say([secret for secret in client.secrets.list() if secret.name == "OF_A_PROGRAM"])
