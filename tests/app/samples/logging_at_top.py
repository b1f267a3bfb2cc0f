"""An app that configures logging at the top of its file."""

import logging
import fal
logging.basicConfig(level=logging.INFO, format="MYFMT %(message)s")
log = logging.getLogger("shop")
log.setLevel(logging.DEBUG)
class U04(fal.App, name="u04"):
    machine_type = "XS"
    app_auth = "public"
    def setup(self):
        log.info("line one from setup")
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        log.info("line two from endpoint"); log.debug("line three"); log.warning("line four")
        return {"level": log.level, "root": logging.getLogger().level}
