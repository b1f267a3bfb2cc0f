"""An operator's machine types, and the errors for a wrong file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.composition.machine_types import read_machine_types
from fal_server.core.faults import InvalidArgument
from fal_server.core.machines import MachineType

GOOD = """\
# for training
[TRAIN]
cpu = 16
memory = "64G"
gpus = "gpu-h100=2"

[small.er]
"""


def read(tmp_path: Path, text: str) -> list[MachineType]:
    path = tmp_path / "machines.toml"
    path.write_text(text)
    return read_machine_types(path)


def test_a_file_of_types(tmp_path: Path) -> None:
    text = """
[train]
cpu = 16
memory = "64G"
gpus = "gpu-h100=2"

[XS]
cpu = 0.25
memory = "256 MiB"
processes = 100
disk = "2G"

[GPU-A100]
cpu = 4
"""
    with_gpus = partial(MachineType, processes=16_384, disk_mib=204_800)
    assert read(tmp_path, text) == [
        with_gpus(name="TRAIN", milli_cpus=16_000, memory_mib=65_536, gpu="GPU-H100", gpus=2),
        MachineType(name="XS", milli_cpus=250, memory_mib=256, processes=100, disk_mib=2048),
        with_gpus(name="GPU-A100", milli_cpus=4000, memory_mib=None, gpu="GPU-A100", gpus=1),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[A]\ncpu = 1\nmemory = 4\n", 'line 3: memory of A is 4: use a size from "64M" to "16T"'),
        ('[A]\ncpu = 1\nmemory = "4K"\n', "line 3: memory of A is '4K'"),
        ('[A]\ncpu = 1\nmemory = "1M"\n', "line 3: memory of A is '1M'"),
        ('[A]\nmemory = "1G"\n', "line 1: A has no cpu"),
        ("\n\n[A]\ncpu = 1\n", "line 3: A has no memory"),
        ('[A]\nmemory = "1G"\ncpu = "2"\n', "line 3: cpu of A is '2': use a number of cores"),
        ('[A]\nmemory = "1G"\ncpu = true\n', "line 3: cpu of A is True"),
        ('[A]\nmemory = "1G"\ncpu = nan\n', "line 3: cpu of A is nan"),
        ('[A]\nmemory = "1G"\ncpu = 0\n', "line 3: cpu of A is 0"),
        ('[A]\ncpu = 1\nmemory = "1G"\ngpus = 2\n', "line 4: gpus of A is 2: use a label and a number"),
        ('[A]\ncpu = 1\nmemory = "1G"\ngpus = "H100=1"\n', "line 4: gpus of A is 'H100=1'"),
        ('[A]\ncpu = 1\nmemory = "1G"\ngpus = "GPU-H100=0"\n', "line 4: gpus of A is 'GPU-H100=0'"),
        ('[A]\ncpu = 1\nmemory = "1G"\nprocesses = 3\n', "line 4: processes of A is 3: use a whole number from 16"),
        ('[A]\ncpu = 1\nmemory = "1G"\ndisk = 3\n', "line 4: disk of A is 3: use a size from"),
        (
            '[A]\ncpu = 1\nmemory = "1G"\n[B]\ncpu = 1\nmemroy = "1G"\n',
            "line 6: memroy of B is unknown: use cpu, memory",
        ),
        ('A = { cpu = 1, memory = "x" }\n', "line 1: memory of A is 'x'"),
        ("cpu = 1\n", "line 1: cpu is not a table: begin each machine type with its name, as [CPU]"),
        ('["a b"]\ncpu = 1\n', "line 1: a b is not a name"),
        ('[a]\ncpu=1\nmemory="1G"\n[A]\ncpu=1\nmemory="1G"\n', "describes A twice"),
        ("[A]\n[A]\n", "is not TOML: Cannot declare ('A',) twice (at line 2"),
        ("[A\n", "is not TOML"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(tmp_path, text)
    assert said in caught.value.message
    assert str(tmp_path / "machines.toml") in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read: No such file or directory"):
        read_machine_types(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgument, match="cannot be read: it is not UTF-8"):
        read_machine_types(tmp_path / "binary")


@given(st.text(max_size=200) | st.lists(st.sampled_from(GOOD.splitlines()), max_size=12).map("\n".join))
def test_any_file_is_types_or_a_message(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape" if text.isprintable() else "replace")
    try:
        said = [machine_type.name for machine_type in read_machine_types(path)]
    except InvalidArgument as fault:
        said = [fault.message.partition(str(path))[1]]
    assert all(said)
