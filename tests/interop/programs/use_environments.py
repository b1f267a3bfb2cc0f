"""Creates, lists and deletes an environment with a secret."""

from functools import partial

from fal.api import SyncServerlessClient

say = partial(print, ">")  # the test compares these lines alone

client = SyncServerlessClient()
made = client.environments.create("of-a-program", description="for a while")
say(type(made).__name__, made.name, made.description, made.is_default)
say([each.name for each in client.environments.list() if each.name == "of-a-program"])
client.secrets.set("HERE_ALONE", "a value", environment_name="of-a-program")
say([secret.name for secret in client.secrets.list(environment_name="of-a-program")])
say([secret.name for secret in client.secrets.list() if secret.name == "HERE_ALONE"])
say(client.environments.delete("of-a-program"))
say([each.name for each in client.environments.list() if each.name == "of-a-program"])
