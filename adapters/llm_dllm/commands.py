"""What the commands of `llm dllm` share."""

from collections.abc import Iterable
from typing import Any

import llm

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PluginError
from llm_dllm.loading import LoadChoice
from llm_dllm.model import DLLM
from llm_dllm.model import Extras
from llm_dllm.options import Options
from llm_dllm.options import to_config


def config_of(options: Iterable[tuple[str, str]], schema: dict[str, Any] | None = None) -> SamplingConfig:
    """What `-o NAME VALUE`, given several times, asks for where there are no answers to questions.

    :param schema: what the answer must be.
    :raises OptionError: for a name that is unknown, a value that cannot be read or is out of range, and for thinking.
    """
    config, extras = wanted_in(options, schema)
    if extras.thinking is not None:
        raise OptionError("-o thinking is about answers to questions; leave it out")
    return config


def wanted_in(
    options: Iterable[tuple[str, str]], schema: dict[str, Any] | None = None
) -> tuple[SamplingConfig, Extras]:
    """The same where there are: the engine's options, and whether the model is to think.

    :raises OptionError: for a name that is unknown, a value that cannot be read or is out of range, and a suffix,
        which is no option of decoding.
    """
    given = dict(options)
    if "suffix" in given:
        raise OptionError(
            f"-o suffix {given['suffix']!r} is an option of `llm -m MODEL` alone; "
            f"use --suffix of `llm dllm fill` or `llm dllm watch`"
        )
    found: Any = Options(**given)
    return to_config(found, schema), Extras(thinking=found.thinking)


def choice_of(name: str) -> LoadChoice:
    """What a model loads, by its name in llm or an alias.

    :raises PluginError: if it is not one of ours.
    """
    try:
        model = llm.get_model(name)
    except llm.UnknownModelError as error:
        raise PluginError(f"unknown model {name!r}; `llm dllm models` lists what there is") from error
    if not isinstance(model, DLLM):
        raise PluginError(f"{name!r} is not a diffusion model; `llm dllm models` lists those")
    return model.choice
