"""What every result is made of: frozen, checked when read, and the same in memory and as JSON."""

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

# JSON has no NaN; pydantic would write null, and then not read its own file back. Written as text, read as a number.
Figure = Annotated[float, PlainSerializer(lambda value: value if math.isfinite(value) else str(value), when_used="json")]


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
