"""An app that imports `environ` from os. It must see the runner's environment, not the deployer's."""

from os import environ
import os
import fal
class U01(fal.App, name="u01"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        return {"from_import": environ.get("BUG_SECRET"), "os_module": os.environ.get("BUG_SECRET"), "leak": environ.get("DEPLOYER_ONLY"), "n": len(environ), "n_os": len(os.environ)}
