import fal
from helpers import GREETING


class Hello(fal.App, name="hello"):
    @fal.endpoint("/")
    def greet(self) -> dict[str, str]:
        return {"text": GREETING}
