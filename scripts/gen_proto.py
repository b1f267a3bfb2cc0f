"""Generate fal_grpc/v1 and docs/reference/rpc from protos/, or check them. They are typed stubs and the RPC reference.

It runs in the environment of `make proto` (requirements/proto.txt), not in the project's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import rpc_reference
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = "fal_grpc/v1"
GENERATED = (STUBS, rpc_reference.OUTPUT)
PACKAGE = "fal.v1"
OWN_PREFIX = "fal/"
PYTHON_PREFIX = "fal_grpc/"
LINT_MARK = "buf:lint:ignore"
INIT = '"""Generated from protos/fal/v1 by `make proto`; not to be edited."""\n'


def protoc(*arguments: str) -> None:
    """Run grpcio-tools' protoc with this environment's plugins; raise CalledProcessError if it fails."""
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *plugins, *arguments], check=True, cwd=ROOT)


def compile_descriptors(scratch: Path) -> descriptor_pb2.FileDescriptorSet:
    """Compile protos/ with comments, except those for the linter."""
    out = scratch / "compiled.binpb"
    names = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob(f"{OWN_PREFIX}v1/*.proto"))
    well_known = str(resources.files("grpc_tools") / "_proto")
    protoc(
        f"-I{PROTOS}",
        f"-I{well_known}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={out}",
        *names,
    )
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    for file in descriptors.file:
        for location in file.source_code_info.location:
            if LINT_MARK in location.leading_comments:
                kept = [line for line in location.leading_comments.splitlines(keepends=True) if LINT_MARK not in line]
                location.leading_comments = "".join(kept)
    return descriptors


def python_path(name: str) -> str:
    """Return the path under which a file compiles to fal_grpc.v1.x_pb2.

    Otherwise protoc would write `from fal.v1 import ...`, but `fal` is the SDK. The package, and with it every name on
    the wire, stays fal.v1.
    """
    return PYTHON_PREFIX + name.removeprefix(OWN_PREFIX) if name.startswith(OWN_PREFIX) else name


def renamed(descriptors: descriptor_pb2.FileDescriptorSet) -> descriptor_pb2.FileDescriptorSet:
    """Return a copy with our files' paths and imports changed by python_path."""
    copy = descriptor_pb2.FileDescriptorSet()
    copy.CopyFrom(descriptors)
    for file in copy.file:
        file.name = python_path(file.name)
        file.dependency[:] = [python_path(name) for name in file.dependency]
    return copy


def write_stubs(descriptors: descriptor_pb2.FileDescriptorSet, scratch: Path, out: Path) -> None:
    """Write messages, services and their types to out/fal_grpc/v1."""
    source = scratch / "renamed.binpb"
    moved = renamed(descriptors)
    source.write_bytes(moved.SerializeToString(deterministic=True))
    names = [file.name for file in moved.file if file.name.startswith(PYTHON_PREFIX)]
    outputs = [
        f"--{kind}{out}" for kind in ("python_out=", "mypy_out=quiet:", "grpc_python_out=", "mypy_grpc_out=quiet:")
    ]
    protoc(f"--descriptor_set_in={source}", *outputs, *names)
    (out / STUBS / "__init__.py").write_text(INIT)


def generate(out: Path) -> None:
    """Write the generated files below out, at their paths in the project."""
    (out / STUBS).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = compile_descriptors(Path(scratch))
        write_stubs(descriptors, Path(scratch), out)
    for name, text in rpc_reference.render(descriptors, PACKAGE).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)


def files_under(base: Path) -> dict[str, bytes]:
    """Return the contents of the generated files below base, by relative path."""
    found = (path for part in GENERATED for path in (base / part).rglob("*") if path.is_file())
    return {str(path.relative_to(base)): path.read_bytes() for path in found if "__pycache__" not in path.parts}


def differences(fresh: Path) -> list[str]:
    """Return how the project's generated files differ from those below fresh. Each difference has one line."""
    ours, theirs = files_under(ROOT), files_under(fresh)
    lines = [f"missing: {name}" for name in sorted(theirs.keys() - ours.keys())]
    lines += [f"not generated any more: {name}" for name in sorted(ours.keys() - theirs.keys())]
    return lines + [f"differs: {name}" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]


def install(fresh: Path) -> None:
    """Replace changed generated files of the project by those below fresh."""
    ours, theirs = files_under(ROOT), files_under(fresh)
    for name in ours.keys() - theirs.keys():
        (ROOT / name).unlink()
    for name, content in theirs.items():
        if ours.get(name) != content:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_bytes(content)


def main() -> int:
    """Generate or check the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; list differences and fail if there are any"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        if not options.check:
            install(Path(fresh))
            return 0
        if lines := differences(Path(fresh)):
            print("\n".join([*lines, "run: make proto"]), file=sys.stderr)
        return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
