"""The app of these tests, which has a runner on each node."""

from __future__ import annotations

# It prints all the time, and says which process it is, and by which key it calls the controller.
_APP = """
import os
import threading
import fal

class Far(fal.App, name="far", keep_alive=300, min_concurrency={runners}, max_concurrency=4, max_multiplexing=4):
    termination_grace_period_seconds = 1
    machine_type = "GPU-FAR"  # one on each node of this test

    def setup(self) -> None:
        with open(os.environ["FAL_DATA_DIR"] + "/" + os.environ["FAL_RUNNER_ID"], "w") as file:
            file.write(os.environ["FAL_KEY"])
        threading.Thread(target=self.beat, daemon=True).start()

    def beat(self) -> None:
        count = 0
        never = threading.Event()
        while not never.wait(0.2):
            count += 1
            print("beat", count, flush=True)

    @fal.endpoint("/")
    def run(self) -> dict:
        return dict(runner=os.environ["FAL_RUNNER_ID"], pid=os.getpid())

    @fal.endpoint("/hold")
    def hold(self) -> dict:
        folder = os.environ["FAL_DATA_DIR"]
        os.close(os.open(folder + "/begins", os.O_CREAT | os.O_WRONLY, 0o666))
        with open(folder + "/goes-on"):
            return dict()
"""


def far_app(runners: int) -> str:
    """Return its code.

    Args:
        runners: how many of them there always are.
    """
    return _APP.format(runners=runners)
