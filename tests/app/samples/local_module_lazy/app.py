"""Local_python_modules cannot be imported inside of setup() or an endpoint."""

import fal
from mypkg import val
from mypkg.b import Ask, Kind
class Lp(fal.App, name="lp"):
    machine_type = "XS"
    app_auth = "public"
    local_python_modules = ["mypkg"]
    @fal.endpoint("/")
    def look(self, request: Ask) -> dict[str, object]:
        out = {"v": val(), "k": request.kind is Kind.A}
        try:
            import mypkg; out["import"] = mypkg.val()
        except Exception as e: out["import"] = f"{type(e).__name__}: {e}"
        try:
            from mypkg import b; out["lazy"] = b.val()
        except Exception as e: out["lazy"] = f"{type(e).__name__}: {e}"
        return out
