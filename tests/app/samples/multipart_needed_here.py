"""UploadFile: the missing python-multipart is reported twice and for the wrong machine."""

import fal
from fastapi import UploadFile
class Ml(fal.App, name="ml"):
    machine_type = "XS"
    app_auth = "public"
    requirements = ["python-multipart"]
    @fal.endpoint("/")
    async def up(self, file: UploadFile) -> dict[str, object]:
        return {"size": len(await file.read())}
