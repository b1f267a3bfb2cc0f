"""An app with attacks on everything outside its runner. Each returns whether it succeeded; ATTACKS describes them.

The interpreter of a runner's environment runs it, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import hmac
import json
import os
import resource
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Targets = dict[str, Any]
_PTRACE_SEIZE = 0x4206
_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_SHM_RDONLY = 0o10000
libc = ctypes.CDLL(None, use_errno=True)


def reads(path: str) -> bool:
    return bool(Path(path).read_bytes())


def reads_admin_key(targets: Targets) -> bool:
    return reads(f"{targets['state']}/admin.key")


def reads_master_key(targets: Targets) -> bool:
    return reads(f"{targets['state']}/master.key")


def reads_database(targets: Targets) -> bool:
    return reads(f"{targets['state']}/fal.db")


def reads_operators_files(targets: Targets) -> bool:
    return reads(targets["operators_file"])


def sees_processes(targets: Targets) -> bool:
    return reads(f"/proc/{targets['controller']}/cmdline")


def reads_controllers_variables(targets: Targets) -> bool:
    return reads(f"/proc/{targets['controller']}/environ")


def reads_runners_variables(targets: Targets) -> bool:
    return reads(f"/proc/{targets['worker']}/environ")


def reads_controllers_memory(targets: Targets) -> bool:
    with Path(f"/proc/{targets['controller']}/mem").open("rb") as memory:
        memory.seek(targets["address"])
        return memory.read(len(targets["secret"])) == targets["secret"].encode()


def traces_a_runner(targets: Targets) -> bool:
    # The end of the child detaches it. Until then its shim could not see its end.
    return in_a_child(lambda: libc.ptrace(_PTRACE_SEIZE, targets["worker"], None, None) == 0)


def signals_the_controller(targets: Targets) -> bool:
    os.kill(targets["controller"], 0)
    return True


def signals_a_runner(targets: Targets) -> bool:
    os.kill(targets["worker"], 0)
    return True


def reads_a_runners_app(targets: Targets) -> bool:
    return reads(f"{targets['runner']}/app/model.txt")


def reads_a_runners_app_by_proc(targets: Targets) -> bool:
    return reads(f"/proc/{targets['worker']}/root/app/model.txt") or reads(f"/proc/{targets['worker']}/cwd/model.txt")


def connects(family: socket.AddressFamily, address: Any) -> bool:
    with socket.socket(family) as sock:
        sock.settimeout(10)
        sock.connect(address)
    return True


def connects_to_a_shim(targets: Targets) -> bool:
    here = os.open(targets["runner"], os.O_PATH)  # its path may be too long for a socket's address
    return connects(socket.AF_UNIX, f"/proc/self/fd/{here}/shim.sock")


def connects_to_an_abstract_socket(targets: Targets) -> bool:
    return connects(socket.AF_UNIX, f"\0{targets['abstract']}")


def connects_to_a_port(targets: Targets) -> bool:
    return connects(socket.AF_INET, ("127.0.0.1", targets["port"]))


def calls_an_app(targets: Targets) -> bool:
    return said_by(targets["app_port"], b"") == 200


def calls_an_app_with_a_key_of_its_own(targets: Targets) -> bool:
    return said_by(targets["app_port"], knock_of_its_own()) == 200


def knock_of_its_own() -> bytes:
    nonce, key = bytes(16), b"0" * 64
    return b"\0fal-gate" + nonce + hmac.new(key, b"caller" + nonce, "sha256").digest()


def reads_an_apps_metrics(targets: Targets) -> bool:
    return said_by(targets["metrics_port"], b"") == 200


def reads_an_apps_metrics_with_a_key_of_its_own(targets: Targets) -> bool:
    return said_by(targets["metrics_port"], knock_of_its_own()) == 200


def said_by(port: int, knock: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(knock + b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        with sock.makefile("rb") as answer:
            return int(answer.readline().split()[1])


def replaces_the_socket_to_the_controller(targets: Targets) -> bool:
    """Take the controller's place. Other runners would send their keys there."""
    path = Path(targets["api_socket"])
    connects(socket.AF_UNIX, str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
    return True


def closes_the_socket_to_the_controller(targets: Targets) -> bool:
    """Change who may connect to it; everybody may as before."""
    path = Path(targets["api_socket"])
    path.chmod(path.stat().st_mode)
    return True


def attaches_shared_memory(targets: Targets) -> bool:
    libc.shmat.restype = ctypes.c_ssize_t
    return bool(libc.shmat(targets["shared_memory"], None, _SHM_RDONLY) != -1)


def opens_a_terminal(targets: Targets) -> bool:
    os.close(os.open(targets["terminal"], os.O_RDWR | os.O_NOCTTY))
    return True


def writes_the_environment(targets: Targets) -> bool:
    path = Path(targets["environment"]) / "planted.pth"
    path.write_text("import os\n")
    path.unlink()
    return True


def writes_kernel_settings(_: Targets) -> bool:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return True


def opens_a_disk(_: Targets) -> bool:
    for entry in os.scandir("/dev"):
        if entry.name in {"mem", "kmsg"} or entry.name.startswith(("sd", "vd", "nvme", "loop")):
            with contextlib.suppress(OSError):
                os.close(os.open(entry.path, os.O_RDONLY))
                return True
    return False


def opens_a_gpu(targets: Targets) -> bool:
    """Open a GPU that another has."""
    with Path(targets["gpu"]).open("r+b", buffering=0) as device:
        return bool(device.read(1))


def makes_a_device(targets: Targets) -> bool:
    """Make a device file of the kind that leads to that GPU. Open it."""
    path = Path("device")
    os.mknod(path, stat.S_IFCHR | 0o600, targets["gpu_number"])
    try:
        with path.open("r+b", buffering=0) as device:
            return bool(device.read(1))
    finally:
        path.unlink()


def in_a_child(attempt: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        done = False
        with contextlib.suppress(OSError):
            done = attempt()
        os._exit(0 if done else 1)
    return os.waitpid(child, 0)[1] == 0


def mounts(_: Targets) -> bool:
    def attempt() -> bool:
        return libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(b"x", b"/tmp", b"tmpfs", 0, None) == 0

    return in_a_child(attempt)


def makes_a_user_namespace(_: Targets) -> bool:
    return in_a_child(lambda: libc.unshare(_CLONE_NEWUSER) == 0)


def has_capabilities(_: Targets) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    held = {line.partition(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
    return bool(held["CapEff"] or held["CapPrm"])


def gains_privileges(_: Targets) -> bool:
    return "NoNewPrivs:\t0" in Path("/proc/self/status").read_text()


def dumps_core(_: Targets) -> bool:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    return True


def gives_itself_rights_by_a_variable(targets: Targets) -> bool:
    return reads(f"{targets['data']}/etc/shadow") or reads(f"{targets['data']}/etc/passwd")


ATTACKS: dict[str, tuple[Callable[[Targets], bool], str]] = {
    function.__name__: (function, says)
    for function, says in (
        (reads_admin_key, "read `admin.key`"),
        (reads_master_key, "read `master.key`"),
        (reads_database, "read `fal.db`"),
        (reads_operators_files, "read other files of the controller's user"),
        (sees_processes, "see processes of the machine"),
        (reads_controllers_variables, "read the controller's variables"),
        (reads_runners_variables, "read another runner's variables"),
        (reads_controllers_memory, "read the controller's memory"),
        (traces_a_runner, "trace another runner"),
        (signals_the_controller, "signal the controller"),
        (signals_a_runner, "signal another runner"),
        (reads_a_runners_app, "read another runner's `/app`"),
        (reads_a_runners_app_by_proc, "read another runner's `/app` through `/proc`"),
        (connects_to_a_shim, "connect to another runner's shim"),
        (connects_to_an_abstract_socket, "connect to an abstract socket of the machine"),
        (connects_to_a_port, "connect to a port of the machine on loopback"),
        (calls_an_app, "call another runner's app on its port"),
        (calls_an_app_with_a_key_of_its_own, "call it with the key of another gate"),
        (reads_an_apps_metrics, "read another runner's metrics"),
        (reads_an_apps_metrics_with_a_key_of_its_own, "read them with the key of another gate"),
        (closes_the_socket_to_the_controller, "change who may connect to the controller's socket"),
        (replaces_the_socket_to_the_controller, "replace the controller's socket"),
        (attaches_shared_memory, "attach shared memory of the machine"),
        (opens_a_terminal, "open a terminal of the machine"),
        (writes_the_environment, "write to the environment that runners share"),
        (writes_kernel_settings, "change the kernel's settings"),
        (opens_a_disk, "open a disk of the machine"),
        (opens_a_gpu, "open another runner's GPU"),
        (makes_a_device, "make a device file and open it"),
        (mounts, "mount a file system"),
        (makes_a_user_namespace, "make a user namespace"),
        (has_capabilities, "use capabilities"),
        (gains_privileges, "gain privileges by a setuid program"),
        (dumps_core, "leave a core dump"),
        (gives_itself_rights_by_a_variable, "choose what is `/data` by a variable of its own"),
    )
}


def attack(targets: Targets) -> dict[str, bool]:
    """Try all attacks; return the successful ones."""
    results: dict[str, bool] = {}
    for name, (function, _) in ATTACKS.items():
        results[name] = False
        with contextlib.suppress(OSError, ValueError, IndexError):
            results[name] = function(targets)
    return results


if __name__ == "__main__":
    sys.stdout.write(json.dumps(attack(json.loads(sys.argv[1]))))
