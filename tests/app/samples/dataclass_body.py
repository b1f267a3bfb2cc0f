"""A plain dataclass as the request body."""

from dataclasses import dataclass, field
import fal
@dataclass
class Point:
    x: int
    y: int = 0
class T06a(fal.App, name="t06a"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self, request: Point) -> Point:
        return request
