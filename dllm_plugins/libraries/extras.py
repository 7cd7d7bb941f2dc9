"""Libraries that only some users need, each behind an extra of this distribution."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dllm_plugins.errors import MissingExtraError
from dllm_plugins.messages import message

#: The extra that brings each of them.
EXTRAS = {
    "accelerate": "accelerate",
    "bitsandbytes": "quantised",
    "fastapi": "serve",
    "gguf": "gguf",
    "jsonschema": "constraints",
    "lark": "constraints",
    "lm_eval": "lm-eval",
    "peft": "train",
    "prometheus_client": "serve",
    "pysat": "reasoning",
    "ray": "ray",
    "referencing": "constraints",
    "torchao": "quantised",
    "rich": "llm",
    "uvicorn": "serve",
}


def has(module: str) -> bool:
    """Whether it is installed; nothing is imported to find out."""
    return find_spec(module) is not None


def need(module: str, purpose: object) -> Any:
    """The module, or what to install.

    :param module: one of :data:`EXTRAS`, or inside of one.
    :param purpose: what needs it, as the beginning of a sentence; a text, or a message that names options.
    :raises MissingExtraError: with the command that installs it.
    """
    package = module.partition(".")[0]
    if not has(package):
        raise MissingExtraError(
            message(
                "{} needs {}, which is not installed: pip install 'dllm-plugins[{}]'", purpose, package, EXTRAS[package]
            )
        )
    return import_module(module)
