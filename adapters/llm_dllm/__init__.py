"""The `llm` plug-in: model `dllm`, registered checkpoints, GGUF files, and the commands `llm dllm ...`.

llm imports this on every call, so nothing here imports more than it must: no torch, no transformers, no commands
and no options before they are asked for.
"""

import logging
from collections.abc import Callable
from typing import Any

import click

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import MissingExtraError
from dllm_plugins.pairs.named import pairs
from dllm_plugins.presets import SHIPPED

try:
    import llm
except ModuleNotFoundError as error:
    if error.name != "llm":
        raise
    raise MissingExtraError("llm_dllm needs llm; install it with `pip install 'dllm-plugins[llm]'`") from error

from llm_dllm.group import dllm
from llm_dllm.loading import LoadChoice
from llm_dllm.model import DLLM
from llm_dllm.model import AsyncDLLM
from llm_dllm.named_files import named_files
from llm_dllm.named_files import named_places
from llm_dllm.named_files import named_presets
from llm_dllm.registry import entries

__all__ = ["DLLM", "AsyncDLLM"]

_log = logging.getLogger(__name__)
_said: set[str] = set()


@llm.hookimpl
def register_models(register: Callable[..., Any]) -> None:
    """Register the default model, what `llm dllm add` registered, and GGUF files by their paths, sync and async."""
    register(DLLM(), AsyncDLLM())
    registered = _registered()
    for name, entry in registered.items():
        choice = LoadChoice(name, entry)
        register(DLLM(choice), AsyncDLLM(choice))
    for name in {**SHIPPED, **dict.fromkeys(named_presets()), **_pairs()}:
        if name not in registered:
            choice = LoadChoice(name, named=True)
            register(DLLM(choice), AsyncDLLM(choice))
    for path, names in named_files().items():
        choice = LoadChoice(str(path), file=str(path))
        register(DLLM(choice), AsyncDLLM(choice), aliases=sorted(names - {choice.model_id}))
    for name in named_places():
        choice = LoadChoice(name, file=name)
        register(DLLM(choice), AsyncDLLM(choice))


def _registered() -> Any:
    """The registered checkpoints."""
    return _read(entries)


def _pairs() -> Any:
    """The registered pairs."""
    return _read(pairs)


def _read(registered: Callable[[], Any]) -> Any:
    """What is registered; a damaged file must not keep llm from other models."""
    try:
        return registered()
    except DllmError as error:
        # llm asks several times in one call.
        if str(error) not in _said:
            _said.add(str(error))
            _log.warning("dllm: %s", error)
        return {}


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """Register `llm dllm`."""
    cli.add_command(dllm)
