"""What a job is told besides its input and output."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from importlib.metadata import version
from typing import Any

from dllm_plugins.config import SamplingConfig


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What all of a job's answers depend on, besides its input.

    :param model: a name, a folder, a hub id or a GGUF file, as `load_model` takes it.
    :param name: what the output calls the model; rows name it so, as `model` does, by one of `aliases`, or not at all.
    :param load: further arguments of `load_model`.
    :param config: options of decoding, for rows that do not say otherwise.
    :param system: a system prompt for plain prompts.
    :param seed: rows that sample and have no seed of their own get one made of this and their place.
    """

    model: str = "dllm"
    name: str = "dllm"
    load: Mapping[str, Any] = field(default_factory=dict)
    config: SamplingConfig = field(default_factory=SamplingConfig)
    system: str | None = None
    seed: int = 0
    aliases: tuple[str, ...] = ()

    def told(self) -> dict[str, str]:
        """All of them by name, as texts; an error shows two that differ."""
        fixed = {"model": self.model, "model name": self.name, "system": self.system, "seed": self.seed}
        own = {f"load option {name}": value for name, value in self.load.items()}
        config = {f"option {name}": value for name, value in self.config.given().items()}
        shown = fixed | {"alias": sorted(self.aliases)} | own | config
        return {name: repr(value) for name, value in sorted(shown.items())} | {"version": version("dllm-plugins")}
