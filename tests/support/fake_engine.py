"""A fake podman or docker. It records its calls, runs commands here, and replaces mounted paths by their sources."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path


def main() -> int:
    record = Path(os.environ["CONTAINERS_RECORD"])
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        broken = os.environ.get("CONTAINERS_BROKEN")
        print(broken or "podman version 9.9.9")
        return 1 if broken else 0
    if any(word.startswith("localhost/fal-grpc-probe:") for word in arguments):
        return probe(arguments, record.with_name("tried"))
    while arguments[0].startswith("--"):
        arguments = arguments[2:]
    verb = arguments[0]
    asked = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--secret"]
    sources = dict(item.removeprefix("id=").split(",src=") for item in asked)
    secrets = {name: Path(path).read_text() for name, path in sources.items() if not name.startswith("fal-build-")}
    auth = os.environ.get("REGISTRY_AUTH_FILE")
    noted: dict[str, object] = {
        "arguments": arguments,
        "secrets": secrets,
        "auth": json.loads(Path(auth).read_text()) if auth else None,
        "variables": dict(os.environ),
    }
    if verb == "build":
        context = Path(arguments[-1])
        noted["dockerfile"] = Path(arguments[arguments.index("--file") + 1]).read_text()
        noted["context"] = {str(file.relative_to(context)): file.read_text() for file in context.rglob("*.txt")}
    with record.open("a") as lines:
        lines.write(json.dumps(noted) + "\n")
    match verb:
        case "image":
            return 1 if record.with_name("lost").exists() else 0
        case "info":
            print(os.environ.get("CONTAINERS_STORAGE", ""))
            return 0
        case "build":
            return build(arguments, str(noted["dockerfile"]), list(secrets.values()))
        case "run":
            return run(arguments)
        case "exec":
            position = next(n for n, word in enumerate(arguments) if word.startswith("fal-"))
            return subprocess.run(arguments[position + 1 :], check=False).returncode
        case _:
            return 0


def probe(arguments: list[str], tried: Path) -> int:
    """Work only with all words of CONTAINERS_NEED_BUILD or CONTAINERS_NEED_RUN. Enforce limits if told to."""
    with tried.open("a") as lines:
        lines.write(json.dumps(arguments) + "\n")
    verb = "BUILD" if "build" in arguments else "RUN"
    missing = set(os.environ.get(f"CONTAINERS_NEED_{verb}", "").split()) - set(arguments)
    if missing and "image" not in arguments:
        print(f"Error: {verb.lower()} refused: {min(missing)} is missing")
        return 126
    return 137 if arguments[-1] == "touch" and os.environ.get("CONTAINERS_LIMIT") else 0


def build(arguments: list[str], dockerfile: str, secrets: list[str]) -> int:
    print("STEP 1: with", *secrets, flush=True)
    if "does-not-exist" in dockerfile:
        print("Error: there is no such image")
        return 125
    if "CONTAINERS_STEP" in os.environ:
        step = ["/bin/sh", "-c", os.environ["CONTAINERS_STEP"]]
        subprocess.run(step, env={**os.environ, "PATH": os.defpath}, check=True)
    Path(arguments[arguments.index("--iidfile") + 1]).write_text("sha256:fake")
    return 0


def plant_links(shared: Path, target: str) -> None:
    """Do what a hostile image's program can before it reads its job."""
    for name in ("function", "setup"):
        (shared / name).unlink(missing_ok=True)
        (shared / name).symlink_to(target)


def run(arguments: list[str]) -> int:
    mounts: dict[str, str] = {}
    for place, word in enumerate(arguments):
        if word == "--volume":
            here, _, there = arguments[place + 1].partition(":")
            mounts[there] = here
    inside = arguments[arguments.index("sha256:fake") + 1 :]
    entrypoint = arguments[arguments.index("--entrypoint") + 1] if "--entrypoint" in arguments else None
    if "CONTAINERS_PLANT" in os.environ:
        plant_links(Path(mounts["/fal"]), os.environ["CONTAINERS_PLANT"])
    if entrypoint == "python3":
        inside = [sys.executable, *inside]
    names = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--env"]
    given = {name: os.environ[name] for name in names if name in os.environ}
    shared = re.escape("/fal")
    inside = [re.sub(shared, mounts.get("/fal", "/fal"), word) for word in inside]
    stdin = None
    if "--interactive" in arguments:
        stdin = sys.stdin.buffer.read().replace(b'"/fal/', f'"{mounts["/fal"]}/'.encode())
    published = next((arguments[n + 1] for n, word in enumerate(arguments) if word == "--publish"), None)
    if published is not None:
        given["PUBLISHED"] = published.split(":")[1]  # an image listens on this machine's own ports here
    process = subprocess.Popen(
        inside, stdin=None if stdin is None else subprocess.PIPE, env={"PATH": os.environ["PATH"], **given}
    )
    import signal

    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    if process.stdin is not None and stdin is not None:
        process.stdin.write(stdin)
        process.stdin.close()
    code = process.wait()
    return code if code >= 0 else 128 - code


sys.exit(main())
