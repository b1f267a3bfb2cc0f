"""Makes refused calls, and prints the classes and texts of the errors."""

import sys
from functools import partial
from pathlib import Path

from fal.api import FalServerlessError, SyncServerlessClient
from fal.exceptions import FalServerlessException
from fal.toolkit.image import get_image_size

say = partial(print, ">")  # the test compares these lines alone
client = SyncServerlessClient()
NOWHERE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
SAMPLE = Path(__file__).parents[1] / "samples" / "tiny.py"
# Programs may look for these words in an error's text.
WRONG = {
    "not found": {
        "scale": lambda: client.apps.scale("nothing-here", keep_alive=5),
        "rollout": lambda: client.apps.rollout("nothing-here"),
        "environment": lambda: client.environments.delete("nothing-here"),
        "stop": lambda: client.runners.stop(NOWHERE),
        "kill": lambda: client.runners.kill(NOWHERE),
        "revoke": lambda: client.keys.revoke("nothing-here"),
    },
    "already exists": {"environment": lambda: client.environments.create("main")},
    "": {
        "secret": lambda: client.secrets.set("bad name", "value"),
        "key": lambda: SyncServerlessClient(api_key="wrong:key").apps.list(),
        "number": lambda: client.apps.scale(sys.argv[1], max_concurrency=-1),
    },
}
for word, actions in WRONG.items():
    for name, do in actions.items():
        try:
            do()
        except Exception as error:
            say(name, word in str(error).lower())
        else:
            say(name, "is accepted")
try:
    client.environments.delete("nothing-here")
except FalServerlessError as error:
    say(isinstance(error, FalServerlessException))
try:
    client.deploy(f"{SAMPLE}::Missing")
except FalServerlessException as error:
    say("Missing" in str(error))
try:
    client.deploy("nowhere.py::App")
except FileNotFoundError:
    say("no file")
try:
    get_image_size({"width": 1})
except TypeError:
    say("no size")
