"""Deploys an app and calls it."""

import sys
from functools import partial
from pathlib import Path

import fal
from fal.api import SyncServerlessClient

say = partial(print, ">")  # the test compares these lines alone

client = SyncServerlessClient()
name = f"deployed-{sys.argv[2]}"
file = Path(__file__).parents[1] / "samples" / "tiny.py"
made = client.deploy(f"{file}::TinyApp", app_name=name, auth="private", strategy="recreate")
say(type(made.revision).__name__, made.app_name == name, sorted(made.urls), made.auth_mode)
say(fal.apps.run(f"local/{name}", {"text": "one "}))
again = client.deploy(str(file), app_name=name, auth="private", strategy="rolling")
say(again.revision != made.revision)
