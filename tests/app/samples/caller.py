"""Apps whose endpoints call another app by its name. They use their runner's address and key."""

import fal
from pydantic import BaseModel


class Input(BaseModel):
    name: str


class Caller(fal.App):
    app_auth = "private"
    machine_type = "XS"
    requirements = ["httpx", "websockets"]

    @fal.endpoint("/")
    def call(self, request: Input) -> dict[str, object]:
        from fal import apps, workflows

        given = request.model_dump()
        with apps.ws("local/greeter") as connection:
            said = connection.run(given).decode()
        step = workflows.Run("step", set(), "local/greeter/loud/er", given)
        return {
            "run": apps.run("local/greeter", given),
            "submit": apps.submit("local/greeter/loud/er", given).get(),
            "stream": list(apps.stream("local/greeter", given, path="count")),
            "ws": said,
            "workflow": step.execute(workflows.Context({})),
        }


class Bare(fal.App):
    app_auth = "private"
    machine_type = "XS"

    @fal.endpoint("/")
    def call(self, request: Input) -> dict[str, str]:
        from fal import apps

        try:
            apps.run("local/greeter", request.model_dump())
        except ImportError as error:
            return {"error": str(error)}
        raise AssertionError("nothing was raised")
