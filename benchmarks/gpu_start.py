"""Measure how long a GPU app's first caller waits. Beside it runs the same app without a GPU.

The GPUs are a library with the symbols of NVIDIA's driver, and device files that lead elsewhere, so that sandboxes get
them. Both apps are on one controller; the one without a GPU has a worker that waits, and the same share of the
processors.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.cold_start import Controller
from tests.support.controller import ROOT
from tests.support.nvml import built_library, environment_of

_ROUNDS = 5
_APP = """
import fal


class Hello(fal.App, name="hello", keep_alive=300):
    app_auth = "public"
    machine_type = "{machine_type}"

    @fal.endpoint("/")
    def greet(self) -> dict[str, str]:
        return {{}}
"""


def _deployed(directory: Path, library: Path) -> Controller:
    directory.mkdir()
    before = ("-m", "tests.isolation.with_gpus")
    controller = Controller(directory, before=before, variables=environment_of(library, 4))
    for name, machine_type in (("plain", "XL"), ("gpu", "GPU-H100")):
        path = directory / f"{name}.py"
        path.write_text(_APP.format(machine_type=machine_type))
        controller.fal("deploy", str(path), "--app-name", name)
    return controller


def main() -> None:
    """Measure and print."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        library = built_library(Path(folder))
        if library is None:
            print("not measured: there is no C compiler for the library that describes GPUs")
            return
        took: dict[str, list[float]] = {"gpu": [], "plain": []}
        controller = _deployed(Path(folder) / "state", library)
        try:
            controller.first_byte("plain")  # so that a worker waits for it
            controller.end_runner(workers=1)
            for number in range(_ROUNDS):
                for app in sorted(took, reverse=bool(number % 2)):
                    took[app].append(controller.first_byte(app))
                    controller.end_runner(workers=1)
        finally:
            controller.close()
    print(f"{'first byte, median and least in ms':44}")
    for app, name in (("gpu", "with a GPU"), ("plain", "without, a worker waits")):
        print(f"{name:44}{statistics.median(took[app]) * 1000:7.0f}{min(took[app]) * 1000:7.0f}")
    ratio = statistics.median(here / there for here, there in zip(took["gpu"], took["plain"], strict=True))
    print(f"ratio: {ratio:.2f}, by the least {min(took['gpu']) / min(took['plain']):.2f}")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
