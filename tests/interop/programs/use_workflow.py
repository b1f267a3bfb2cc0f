"""Creates a workflow, runs it locally and publishes it. It then runs it on the controller."""

import sys
from functools import partial

from pydantic import BaseModel

import fal.apps
from fal.workflows import Workflow, create_workflow

say = partial(print, ">")  # the test compares these lines alone


class Text(BaseModel):
    text: str


app = f"local/{sys.argv[1]}"
workflow = create_workflow(f"twice-{sys.argv[2]}", Text, Text)
once = workflow.run(app, {"text": workflow.input.text})
workflow.set_output({"text": workflow.run(app, {"text": once.text}).text})
say(workflow.execute({"text": "here "}))
say(Workflow.from_json(workflow.to_json()).to_json() == workflow.to_json())
name = workflow.publish("Twice", is_public=False)
say(name.partition("/")[0])
say(fal.apps.run(f"workflows/{name}", {"text": "there "}))
