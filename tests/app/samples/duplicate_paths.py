"""Two endpoints at one path, which a deploy refuses."""

import fal
class Dup(fal.App, name="dup"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/a")
    def one(self) -> int: return 1
    @fal.endpoint("/a")
    def two(self) -> int: return 2
