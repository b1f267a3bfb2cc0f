"""An app that reads its request's context, and cleans up."""

import fal
from pydantic import BaseModel


class Input(BaseModel):
    pass


class Context(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]
    app_name = "context"
    app_auth = "public"

    async def setup(self):
        self.opened = True

    async def teardown(self):
        self.opened = False

    @fal.endpoint("/")
    async def read(self, input: Input) -> dict:
        context = self.current_request
        return {"endpoint": context.endpoint, "has_id": bool(context.request_id), "opened": self.opened}
