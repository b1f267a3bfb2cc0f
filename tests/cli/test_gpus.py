"""`fal runners gpus` and `fal apps gpus`."""

from __future__ import annotations

import asyncio
import json

import pytest

from fal.api import AsyncServerlessClient, SyncServerlessClient
from fal.gpus import short_name
from fal_cli.main import main
from fal_grpc.errors import NotFoundError

METRICS = {
    "summary": {"total_gpu_by_type": {"NVIDIA H100 80GB HBM3": 2, "GPU-H100": 1, "GPU-A100": 4, "XS": 3, "GPU-T4": 0}},
    "apps": {"local/shop": {"gpu_count_by_type": {"GPU-A100": 4}}},
}


@pytest.fixture(autouse=True)
def metrics(rest) -> None:
    rest.answers["/applications/metrics"] = METRICS


def test_all(capsys):
    assert main(["runners", "gpus", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"gpus": {"A100": 4, "H100": 3}, "total": 7}
    assert main(["runners", "gpus"]) == 0
    assert capsys.readouterr().out.endswith("Total: 7\n")


def test_of_an_app(capsys):
    assert main(["apps", "gpus", "shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"gpus": {"A100": 4}, "total": 4}
    assert main(["apps", "gpus", "none"]) == 1
    assert "Application 'none' not found in metrics" in capsys.readouterr().err


def test_the_sdk_counts_the_same_on_both_sides():
    shop = {"gpus": {"A100": 4}, "total": 4}
    with SyncServerlessClient() as client:
        assert client.runners.gpus() == {"gpus": {"A100": 4, "H100": 3}, "total": 7}
        assert client.apps.gpus("shop") == client.apps.gpus("local/shop") == shop

    async def awaited():
        async with AsyncServerlessClient() as client:
            assert await client.runners.gpus() == {"gpus": {"A100": 4, "H100": 3}, "total": 7}
            assert await client.apps.gpus("shop") == shop
            with pytest.raises(NotFoundError, match="'none'"):
                await client.apps.gpus("none")

    asyncio.run(awaited())


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("GPU-H100", "H100"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100"),
        ("H100-MIG", "H100 MIG"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("GPU-B200", "B200"),
        ("GPU-5090", "5090"),
        ("GPU-SOMETHING", "SOMETHING"),
    ],
)
def test_short_names(name, short):
    assert short_name(name) == short
