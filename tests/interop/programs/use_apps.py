"""Lists, scales and shows an app."""

import sys
from functools import partial

from fal.api import SyncServerlessClient

say = partial(print, ">")  # the test compares these lines alone

client = SyncServerlessClient()
app = sys.argv[1]


def shown(alias):
    names = ("alias", "keep_alive", "max_concurrency", "max_multiplexing", "min_concurrency", "request_timeout")
    more = ("startup_timeout", "auth_mode", "machine_types", "valid_regions", "environment_name")
    return {name: getattr(alias, name) for name in (*names, *more)}


say([type(alias).__name__ for alias in client.apps.list(filter=app)])
say(client.apps.list(filter="nothing-has-this-name"))
say(shown(client.apps.scale(app, keep_alive=61, max_concurrency=2, machine_types=["XS", "S"])))
say(shown(client.apps.scale(app, keep_alive=300, max_concurrency=3)))
say(shown(client.apps.list(filter=app)[0]))
client.apps.rollout(app)
say(sorted(client.apps.gpus(app)))
