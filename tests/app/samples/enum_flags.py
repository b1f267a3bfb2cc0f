"""An IntFlag with members of several bits, whose combinations have names."""

import enum
import fal
class Rank(enum.IntFlag):
    LOW = 11
    MID = 37
class Access(enum.Flag):
    R = 1
    W = 2
    RW = 3
class U10(fal.App, name="u10"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        return {"mid": int(Rank.MID), "rw": (Access.R | Access.W).name}
