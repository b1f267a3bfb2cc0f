"""An `httpx.Client()` at the top, which cannot be pickled. The error must name it."""

import fal, httpx
client = httpx.Client(timeout=5)
class Hx(fal.App, name="hx"):
    machine_type = "XS"
    app_auth = "public"
    requirements = ["httpx"]
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        return {"t": type(client).__name__}
