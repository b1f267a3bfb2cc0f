"""A model that distributes its work over several processes."""

import fal
from fal.distributed import DistributedRunner, DistributedWorker
from pydantic import BaseModel


class Input(BaseModel):
    number: int


class Half(DistributedWorker):
    async def setup(self, base: int = 0, **more) -> None:
        self.base = base

    def __call__(self, streaming: bool = False, number: int = 0, **more) -> dict:
        return {"sum": self.base + number, "rank": self.rank, "of": self.world_size}


class Distributed(fal.App, keep_alive=60):
    machine_type = "XS"
    requirements = ["pillow"]

    async def setup(self):
        self.runner = DistributedRunner(Half, world_size=2)
        await self.runner.start(base=10)

    async def teardown(self):
        await self.runner.stop()

    @fal.endpoint("/")
    async def share(self, input: Input) -> dict:
        return await self.runner.invoke({"number": input.number})
