"""Which sampler a checkpoint was made for, and what says so.

In this order: the caller, config.json (written by us when a model is saved), tokens that only one
sampler uses, and the hub id. What a folder of somebody's disk is called says nothing.
"""

import json
import logging
from dataclasses import dataclass

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import hub_name
from dllm_plugins.files.reading import is_there
from dllm_plugins.files.reading import read_object
from dllm_plugins.messages import message

#: Where config.json keeps it.
KEY = "dllm_preset"
#: Samplers that need a token of their own, and a part of its name.
TOKENS = {"dreamon": "expand"}
_TOKENS_OF = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PresetChoice:
    """A family's sampler, None if nothing says which, and what says it."""

    sampler: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.sampler or 'unknown'}: {self.reason}"


def presets_of(layout: Layout) -> list[str]:
    """The family's own samplers."""
    return list(dict.fromkeys((*layout.modes.values(), *layout.samplers)))


def preset_of(name: str, checkpoint: Checkpoint, given: str | None) -> PresetChoice:
    """The sampler behind mode `diffusion`.

    :param name: what the checkpoint was asked for by: a hub id, or a place.
    :raises OptionError: for one that does not fit the family.
    :raises CheckpointError: for one in config.json that does not.
    """
    layout, known = checkpoint.layout, presets_of(checkpoint.layout)
    listed = f"presets of {layout.name}: {', '.join(known)}"
    if given is not None:
        if given not in known:
            raise OptionError(message("{preset}={!r} does not fit {}; {}", given, name, listed))
        return PresetChoice(given, "as it was asked for")
    stored = checkpoint.config.get(KEY)
    if stored is not None:
        if stored not in known:
            raise CheckpointError(f"{checkpoint.folder}: config.json says {KEY}={stored!r}; {listed}")
        return PresetChoice(stored, f"config.json says {KEY}")
    for sampler, token in TOKENS.items():
        if sampler in known and _has_token(checkpoint, token):
            return PresetChoice(sampler, f"it has a token to {token}")
    for part, sampler in layout.hints.items():
        if part in hub_name(name):
            return PresetChoice(sampler, f"{part!r} is part of its hub id")
    return PresetChoice(layout.modes.get("diffusion"), f"the own sampler of family {layout.name}")


def _has_token(checkpoint: Checkpoint, part: str) -> bool:
    """Whether its config or its tokenizer's small files name such a special token."""
    if checkpoint.config.get(f"{part}_token_id") is not None:
        return True
    if not checkpoint.folder.is_dir():
        return False
    places = (checkpoint.folder / name for name in _TOKENS_OF)
    return any(f"|{part}|" in json.dumps(read_object(place)) for place in places if is_there(place))


def tell(name: str, choice: PresetChoice) -> None:
    """Say it where a host listens."""
    _log.info("%s decodes with %r: %s", name, choice.sampler, choice.reason)


def with_preset(config: dict[str, object], name: str, checkpoint: Checkpoint, given: str | None) -> dict[str, object]:
    """A config that keeps the sampler, where the family alone does not say it."""
    chosen = preset_of(name, checkpoint, given).sampler
    if chosen is None or chosen == checkpoint.layout.modes.get("diffusion"):
        return {key: value for key, value in config.items() if key != KEY}
    return {**config, KEY: chosen}
