"""The size of the controller's own log is limited."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SAYS_A_LOT = """
import logging, os, sys
from pathlib import Path
from fal_server.composition.logging_setup import OwnLogFile

logging.basicConfig(level=logging.INFO, handlers=[OwnLogFile(Path(sys.argv[1]), most_bytes=2000)], format="%(message)s")
for number in range(200):
    logging.info("line %d of many \\u2603 \\udcff", number)
    os.write(2, b"from C %d\\n" % number)
print("printed", flush=True)
"""


def test_a_full_log_is_put_aside_with_what_others_write_to_it(tmp_path: Path) -> None:
    log = tmp_path / "controller.log"
    done = subprocess.run([sys.executable, "-c", SAYS_A_LOT, str(log)], capture_output=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"", b"")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["controller.log", "controller.log.1", "controller.log.2"]
    assert all(file.stat().st_size < 2200 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    written = [line for file in reversed(files) for line in file.read_text().splitlines()]
    assert written[-3:] == ["line 199 of many \u2603 \\udcff", "from C 199", "printed"]
    first = int(written[0].split()[1 if written[0].startswith("line") else 2])
    assert [line for line in written if line.startswith("from")] == [f"from C {n}" for n in range(first, 200)]


def test_grpc_says_nothing_of_forks() -> None:
    code = "import fal_server, os; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'], 'grpc' in __import__('sys').modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"0 False\n"
