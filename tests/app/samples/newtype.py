"""NewType (also ParamSpec, TypeVarTuple) at the top of a file."""

from typing import NewType
import fal
from pydantic import BaseModel
TicketId = NewType("TicketId", str)
class Ask(BaseModel):
    ticket: TicketId
class Desk(fal.App, name="s02"):
    machine_type = "XS"
    app_auth = "public"
    @fal.endpoint("/")
    def look(self, request: Ask) -> dict[str, TicketId]:
        return {"ticket": TicketId(request.ticket + "!")}
