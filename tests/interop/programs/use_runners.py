"""Starts a runner by a call, shows and stops it."""

import sys
from functools import partial

import fal
from fal.api import SyncServerlessClient

say = partial(print, ">")  # the test compares these lines alone

client = SyncServerlessClient()
app = sys.argv[1]
fal.apps.run(f"local/{app}", {"text": "the "})
found = client.apps.runners(app, state=["running", "idle"])
say(len(found), {type(runner).__name__ for runner in found})
runner = found[0]
say(type(runner.runner_id).__name__, runner.alias, runner.state.name, runner.machine_type)
say(type(runner.uptime).__name__, runner.in_flight_requests)
say(runner.runner_id in [each.runner_id for each in client.runners.list()])
say(client.runners.kill(runner.runner_id))
say(sorted(client.runners.gpus()))
