"""Diffusion language models behind one engine: cached-prefix block sampling.

Names are imported on first use, so that importing a plug-in of a host stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from dllm_plugins.config import SamplingConfig
    from dllm_plugins.constraints.values import Grammar
    from dllm_plugins.constraints.values import JsonSchema
    from dllm_plugins.constraints.values import Regex
    from dllm_plugins.default_model import base_folder
    from dllm_plugins.edits import Edit
    from dllm_plugins.edits import EditedText
    from dllm_plugins.engine import Engine
    from dllm_plugins.errors import DllmError
    from dllm_plugins.events import Commit
    from dllm_plugins.events import Draft
    from dllm_plugins.events import Event
    from dllm_plugins.events import Finish
    from dllm_plugins.events import Usage
    from dllm_plugins.hookspecs import hookimpl
    from dllm_plugins.models import Model
    from dllm_plugins.models import load_model
    from dllm_plugins.request import Request
    from dllm_plugins.template import FilledText
    from dllm_plugins.template import Gap
    from dllm_plugins.template import Template

__version__ = "0.1.0"

_HOMES = {
    "Commit": "events",
    "DllmError": "errors",
    "Draft": "events",
    "Edit": "edits",
    "EditedText": "edits",
    "Engine": "engine",
    "Event": "events",
    "FilledText": "template",
    "Finish": "events",
    "Gap": "template",
    "Grammar": "constraints.values",
    "JsonSchema": "constraints.values",
    "Model": "models",
    "Regex": "constraints.values",
    "Request": "request",
    "SamplingConfig": "config",
    "Template": "template",
    "Usage": "events",
    "base_folder": "default_model",
    "hookimpl": "hookspecs",
    "load_model": "models",
}

__all__ = [
    "Commit",
    "DllmError",
    "Draft",
    "Edit",
    "EditedText",
    "Engine",
    "Event",
    "FilledText",
    "Finish",
    "Gap",
    "Grammar",
    "JsonSchema",
    "Model",
    "Regex",
    "Request",
    "SamplingConfig",
    "Template",
    "Usage",
    "__version__",
    "base_folder",
    "hookimpl",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Behind most of these names is torch.
    from dllm_plugins.libraries.collecting import uncollected

    with uncollected():
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
