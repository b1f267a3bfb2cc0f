"""A forked child of an app that is ended by SIGTERM."""

import multiprocessing
import fal
def work(n): return n * n
class U12c(fal.App, name="u12c"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self) -> dict[str, object]:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            try: return {"pool": pool.map(work, [1, 2])}
            except Exception as e: return {"pool": f"{type(e).__name__}: {e}"}
    @fal.endpoint("/kill")
    def kill(self) -> dict[str, object]:
        import time
        p = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,)); p.start(); time.sleep(0.3)
        p.terminate(); p.join(5)
        return {"exitcode": p.exitcode}
