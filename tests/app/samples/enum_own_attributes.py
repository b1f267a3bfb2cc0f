"""Enum members with attributes that their `__new__` or `__init__` gave them."""
# pyright: reportAttributeAccessIssue=false

from enum import Enum
import fal
from pydantic import BaseModel
class Style(str, Enum):
    PHOTO = ("photo", 30, "a photo of {}")
    SKETCH = ("sketch", 12, "a pencil sketch of {}")
    def __new__(cls, code, steps, template):
        member = str.__new__(cls, code)
        member._value_ = code
        member.steps = steps
        member.template = template
        return member
class Ask(BaseModel):
    style: Style = Style.PHOTO
    subject: str = "fox"
class U05(fal.App, name="u05"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self, request: Ask) -> dict[str, object]:
        return {"prompt": request.style.template.format(request.subject), "steps": request.style.steps}
