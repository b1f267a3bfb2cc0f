"""Calls an app directly, through the queue, and as a stream. One call has wrong input."""

import sys
from functools import partial

import fal.apps

say = partial(print, ">")  # the test compares these lines alone

app = f"local/{sys.argv[1]}"
say(fal.apps.run(app, {"text": "the "}))
handle = fal.apps.submit(app, {"text": "queued "})
seen = [event for event in handle.iter_events(logs=True)]
say({type(event).__name__ for event in seen} <= {"Queued", "InProgress"}, type(handle.status()).__name__)
say(handle.get())
say(handle.get())
say(type(handle.request_id).__name__, handle.app_id)
say([part for part in fal.apps.stream(app, {"text": "x"})])
slow = fal.apps.submit(app, {}, path="/slow")
slow.cancel()
try:
    slow.get()
except Exception as error:
    say(type(error).__module__.split(".")[0], type(error).__name__, error.response.status_code)
for path, body in (("", {"text": []}), ("/nowhere", {})):
    try:
        fal.apps.run(app, body, path=path)
    except Exception as error:
        say(type(error).__module__.split(".")[0], type(error).__name__, error.response.status_code)
