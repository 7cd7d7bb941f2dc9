"""What a model can do, as LangChain's `profile` says it, found out without loading the model."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from langchain_core.language_models import ModelProfile

from dllm_plugins.default_model.header import base_config
from dllm_plugins.families.files import base_name
from dllm_plugins.families.files import is_adapter
from dllm_plugins.files.replacing import read_config

#: The registered model whose base says how much it holds.
_DEFAULT = "dllm"
#: Where configs of the families say how many positions there are.
_CONTEXT = ("max_position_embeddings", "max_sequence_length")
#: What holds of every model here: they read and write text.
_TEXT = ModelProfile(
    open_weights=True,
    text_inputs=True,
    text_outputs=True,
    image_inputs=False,
    audio_inputs=False,
    video_inputs=False,
    pdf_inputs=False,
    image_outputs=False,
    audio_outputs=False,
    video_outputs=False,
    reasoning_output=False,
    tool_calling=True,
    tool_choice=True,
    structured_output=True,
)


def profile_of(name: str, base: str | None) -> ModelProfile:
    """What is known of a model before it is loaded; its context only where a file on this machine says it.

    :param base: of the default model.
    """
    found = _TEXT | ModelProfile(name=name)
    context = _context(_config(name, base))
    return found if context is None else with_context(found, context)


def with_context(profile: ModelProfile, context: int) -> ModelProfile:
    """The same with how many tokens prompt and answer may have together."""
    return profile | ModelProfile(max_input_tokens=context, max_output_tokens=context)


@lru_cache(maxsize=16)
def _config(name: str, base: str | None) -> dict[str, Any]:
    """config.json, or what the default base says; empty where it would have to be fetched first.

    :raises DllmError: for one that is not there, or damaged: loading will say so.
    """
    if name == _DEFAULT and (base is None or Path(base).is_dir()):
        return dict(base_config(None if base is None else _adapted(Path(base))))
    folder = _adapted(Path(name))
    return read_config(folder) if folder.is_dir() else {}


def _adapted(folder: Path) -> Path:
    """Where the config is: of an adapter, the checkpoint that it names."""
    return Path(base_name(folder)) if is_adapter(folder) else folder


def _context(config: dict[str, Any]) -> int | None:
    inside = config.get("text_config")
    for part in (config, inside if isinstance(inside, dict) else {}):
        for key in _CONTEXT:
            if type(part.get(key)) is int:
                return int(part[key])
    return None
