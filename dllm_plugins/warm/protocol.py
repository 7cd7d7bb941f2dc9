"""What both ends must agree on before one asks the other: a call is a line, and so is each answer to it.

A call says who asks and what: only whether it fits (`look`), facts of a model (`open`), answers to requests (`answer`),
ids of a prompt (`encode`), or what a tokenizer makes of a text or of ids (`write`, `read`). The first answer says that
the call fits (`fits`), or why not (`unfit`); then come the results, and `done`. An `error` is one of ours, raised where
it was asked.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dllm_plugins

#: Raised with every change of what is sent.
PROTOCOL = 2
#: Seconds until the other end has taken a call, or sent one.
PATIENCE = 10.0
#: What changes answers besides options: which plug-ins and which kernels there are.
_VARIABLES = ("DLLM_LOAD_PLUGINS", "DLLM_KERNELS", "TRITON_INTERPRET")


def identity() -> dict[str, Any]:
    """What must be the same at both ends, so that answers are."""
    return {
        "protocol": PROTOCOL,
        "version": dllm_plugins.__version__,
        "installation": f"{Path(dllm_plugins.__file__).resolve().parent} in {sys.prefix}",
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def difference(theirs: Mapping[str, Any]) -> str | None:
    """What is not the same in a call; None if all is."""
    for name, own in identity().items():
        if theirs.get(name) != own:
            return f"its {name} is {own!r}, not {theirs.get(name)!r}"
    return None
