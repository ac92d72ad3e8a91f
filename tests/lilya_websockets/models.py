"""The same messages as models of each kind."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import msgspec
import pydantic
from typing_extensions import TypedDict


class Say(pydantic.BaseModel):
    type: Literal["say"] = "say"
    text: str


class Leave(pydantic.BaseModel):
    type: Literal["leave"] = "leave"


class TaggedSay(msgspec.Struct, tag="say"):
    text: str


class TaggedLeave(msgspec.Struct, tag="leave"):
    pass


class StructSay(msgspec.Struct):
    text: str
    type: Literal["say"] = "say"


class StructLeave(msgspec.Struct):
    type: Literal["leave"] = "leave"


@dataclasses.dataclass
class DataSay:
    text: str
    type: Literal["say"] = "say"


@dataclasses.dataclass
class DataLeave:
    type: Literal["leave"] = "leave"


@pydantic.dataclasses.dataclass
class PydanticDataSay:
    text: str
    type: Literal["say"] = "say"


@pydantic.dataclasses.dataclass
class PydanticDataLeave:
    type: Literal["leave"] = "leave"


class DictSay(TypedDict):
    type: Literal["say"]
    text: str


class DictLeave(TypedDict):
    type: Literal["leave"]


class Kind(NamedTuple):
    """Two messages of one kind, and the library that serves them."""

    library: Literal["pydantic", "msgspec"]
    say: Any
    leave: Any

    @property
    def union(self) -> Any:
        return self.say | self.leave


KINDS = {
    "pydantic": Kind("pydantic", Say, Leave),
    "pydantic-dataclass": Kind("pydantic", PydanticDataSay, PydanticDataLeave),
    "dataclass-by-pydantic": Kind("pydantic", DataSay, DataLeave),
    "dict-by-pydantic": Kind("pydantic", DictSay, DictLeave),
    "msgspec-tagged": Kind("msgspec", TaggedSay, TaggedLeave),
    "msgspec-literal": Kind("msgspec", StructSay, StructLeave),
    "dataclass-by-msgspec": Kind("msgspec", DataSay, DataLeave),
    "dict-by-msgspec": Kind("msgspec", DictSay, DictLeave),
}
