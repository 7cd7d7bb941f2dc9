"""The `llm` plug-in: model `dllm`, registered checkpoints, GGUF files, and the commands `llm dllm ...`.

llm imports this on every call, so nothing here may import torch or transformers.
"""

import logging
from collections.abc import Callable
from typing import Any

import click
import llm

from dllm_plugins.commands.setup import setup
from dllm_plugins.errors import DllmError
from llm_dllm.bench_command import bench
from llm_dllm.commands import dllm
from llm_dllm.gguf_command import gguf
from llm_dllm.info_command import info
from llm_dllm.loading import Choice
from llm_dllm.model import DLLM
from llm_dllm.model import AsyncDLLM
from llm_dllm.named_files import named_files
from llm_dllm.named_files import named_places
from llm_dllm.registry import entries
from llm_dllm.registry_commands import add
from llm_dllm.registry_commands import models
from llm_dllm.registry_commands import remove
from llm_dllm.rules_command import rules
from llm_dllm.watch_command import watch

__all__ = ["DLLM", "AsyncDLLM"]

_log = logging.getLogger(__name__)
_said: set[str] = set()


@llm.hookimpl
def register_models(register: Callable[..., Any]) -> None:
    """Register the default model, what `llm dllm add` registered, and GGUF files by their paths, sync and async."""
    register(DLLM(), AsyncDLLM())
    for name, entry in _registered().items():
        choice = Choice(name, entry)
        register(DLLM(choice), AsyncDLLM(choice))
    for path, names in named_files().items():
        choice = Choice(str(path), file=str(path))
        register(DLLM(choice), AsyncDLLM(choice), aliases=sorted(names - {choice.model_id}))
    for name in named_places():
        choice = Choice(name, file=name)
        register(DLLM(choice), AsyncDLLM(choice))


def _registered() -> Any:
    """The registered checkpoints; a damaged file must not keep llm from other models."""
    try:
        return entries()
    except DllmError as error:
        # llm asks several times in one call.
        if str(error) not in _said:
            _said.add(str(error))
            _log.warning("dllm: %s", error)
        return {}


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """Register `llm dllm`."""
    for command in (add, bench, gguf, info, models, remove, rules, setup, watch):
        dllm.add_command(command)
    cli.add_command(dllm)
