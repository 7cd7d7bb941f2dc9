"""Which chat template a checkpoint is spoken to with: its own, unless its family is known to ship a wrong one."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from dllm_plugins.families.layout import Layout


def speaking(tokenizer: Any, layout: Layout) -> Any:
    """The tokenizer with the chat template that every host uses, and training as well.

    That is its own. The family's stands in where there is none, and where the tokenizer's is the one that the family's
    checkpoints came with, which is known by :attr:`~dllm_plugins.families.layout.Layout.template_mark`.

    :returns: the tokenizer itself, or a copy that shares its vocabulary; what is given is not changed.
    """
    own = tokenizer.chat_template
    default = own.get("default") if isinstance(own, Mapping) else own
    if layout.chat_template is None or (default and (not layout.template_mark or layout.template_mark not in default)):
        return tokenizer
    found = copy(tokenizer)
    found.chat_template = layout.chat_template
    return found
