"""The `llm` plug-in: model `dllm` and the commands `llm dllm ...`.

llm imports this on every call, so nothing here may import torch or transformers.
"""

from collections.abc import Callable
from typing import Any

import click
import llm

from llm_dllm.commands import dllm
from llm_dllm.model import DLLM
from llm_dllm.model import AsyncDLLM

__all__ = ["DLLM", "AsyncDLLM"]


@llm.hookimpl
def register_models(register: Callable[..., Any]) -> None:
    """Register the default model, sync and async."""
    register(DLLM(), AsyncDLLM())


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """Register `llm dllm`."""
    cli.add_command(dllm)
