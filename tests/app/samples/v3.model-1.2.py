"""An app file with a dot in its name."""

import fal
class App(fal.App, name="v3"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self) -> dict[str, str]:
        return {"f": __name__}
