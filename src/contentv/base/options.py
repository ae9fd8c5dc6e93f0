"""Flags that several verbs have, each described once."""

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field

from contentv.base.config import Argument

Device: TypeAlias = Annotated[
    str | None, Argument(default="the best there is"), Field(description="where to compute")
]
Root: TypeAlias = Annotated[
    Path | None,
    Argument(default="the table's own"),
    Field(description="folder that paths in a table or manifest start from"),
]
FileWorkers: TypeAlias = Annotated[
    int,
    Argument(default="0: one a processor"),
    Field(ge=0, le=1024, description="files measured at the same time"),
]
TestCaptions: TypeAlias = Annotated[
    bool,
    Field(description="use captions of models that are only for tests"),
]
