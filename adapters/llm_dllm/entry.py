"""What is kept of a checkpoint that `llm dllm add` registered, and how it is read."""

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import TypeAdapter
from pydantic import ValidationError


class CheckpointFacts(BaseModel):
    """What `llm dllm models` shows of a checkpoint, found out when it was added."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    parameters: int
    size: int
    licence: str
    attention: str
    cache: str
    sampler: str
    sampler_reason: str = ""

    def why(self) -> str:
        """The sampler, and what said so; entries of earlier versions tell only the one."""
        return f"{self.sampler}: {self.sampler_reason}" if self.sampler_reason else self.sampler


class Entry(BaseModel):
    """One registered checkpoint.

    :param source: the folder or the hub id it was added by.
    :param folder: where its files were then.
    :param family, preset, mask_id: see :class:`dllm_plugins.load_options.LoadOptions`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    folder: str
    family: str | None = None
    preset: str | None = None
    mask_id: int | None = None
    facts: CheckpointFacts


_ENTRIES = TypeAdapter(dict[str, Entry])


def parsed(text: bytes) -> dict[str, Entry]:
    """The entries of a registry's JSON.

    :raises ValueError: saying what is wrong with it, and where.
    """
    try:
        return _ENTRIES.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from error
