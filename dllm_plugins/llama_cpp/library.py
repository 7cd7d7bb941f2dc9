"""llama.cpp itself, through llama-cpp-python's low-level functions: found, checked, silenced.

Struct layouts follow the llama.cpp commit a release is built from, so only releases that were
tried are used. The package's own log callback numbers the levels differently from the library
it is built with and hides errors; ours keeps them, for the exceptions raised with them.
"""

import ctypes
import re
from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any
from weakref import finalize

from dllm_plugins.errors import GgufError
from dllm_plugins.errors import MissingLlamaCppError

INSTALL = "pip install 'dllm-plugins[gguf]'"
OLDEST, BEYOND = (0, 3, 36), (0, 4)
#: ggml's own numbers (ggml.h).
_ERROR, _CONTINUED = 4, 5
_NEEDED = (
    "llama_adapter_lora_init",
    "llama_backend_init",
    "llama_context_default_params",
    "llama_decode",
    "llama_free",
    "llama_get_embeddings",
    "llama_get_logits",
    "llama_get_memory",
    "llama_init_from_model",
    "llama_log_set",
    "llama_max_parallel_sequences",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_pos_min",
    "llama_memory_seq_rm",
    "llama_model_default_params",
    "llama_model_free",
    "llama_model_get_vocab",
    "llama_model_load_from_file",
    "llama_model_meta_count",
    "llama_model_meta_key_by_index",
    "llama_model_meta_val_str_by_index",
    "llama_model_n_swa",
    "llama_set_adapters_lora",
    "llama_set_causal_attn",
    "llama_set_embeddings",
    "llama_state_seq_get_data",
    "llama_state_seq_get_size",
    "llama_state_seq_set_data",
    "llama_synchronize",
    "llama_vocab_n_tokens",
)


class _Log:
    """What llama.cpp says: errors are kept until somebody asks, the rest is dropped."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self._level = 0

    def hear(self, level: int, text: bytes, _data: Any) -> None:
        """llama.cpp's callback."""
        if level != _CONTINUED:
            self._level = level
        if self._level >= _ERROR and text:
            self._lines.append(text.decode("utf-8", "replace"))

    def take(self) -> str:
        """Everything kept, on one line."""
        found = ""
        while self._lines:
            found += self._lines.popleft()
        return "; ".join(line.strip() for line in found.splitlines() if line.strip())


_LOG = _Log()
#: Kept here because llama.cpp calls it for as long as the process lives.
_CALLBACKS: list[Any] = []


def complaints() -> str:
    """The errors llama.cpp has reported since this was asked last; empty if there were none."""
    return _LOG.take()


def failed(what: str, remedy: str) -> GgufError:
    """An exception with what llama.cpp said about it."""
    said = complaints()
    return GgufError(f"{what}; {remedy}" + (f" (llama.cpp: {said})" if said else ""))


class Handle:
    """What llama.cpp has made, given back with its last holder, or when `free` is called.

    Calls take seconds, and an interrupt that came meanwhile is raised right behind them. So the
    pointer is noted within the same step of the interpreter: nothing comes between the two.

    :param free: what gives the pointer back.
    :param make: what makes it, of `arguments`.
    :param needs: another handle that must not go before.
    """

    def __init__(
        self, free: Callable[[Any], None], make: Callable[..., Any], *arguments: Any, needs: Any = None
    ) -> None:
        self._found: list[Any] = []
        self.free = finalize(self, _give_back, free, self._found, needs)
        self._found.extend(map(make, *[[argument] for argument in arguments]))

    @property
    def pointer(self) -> Any:
        """llama.cpp's own; null if it made nothing, None once it is given back."""
        return self._found[0] if self._found else None


def _give_back(free: Callable[[Any], None], found: list[Any], _needs: Any) -> None:
    while found:
        pointer = found.pop()
        if pointer:
            free(pointer)


def check_version(version: str) -> None:
    """Refuse releases whose structs we do not know.

    :raises MissingLlamaCppError: naming the version and what to install.
    """
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if not OLDEST <= found < BEYOND:
        oldest, beyond = (".".join(map(str, part)) for part in (OLDEST, BEYOND))
        raise MissingLlamaCppError(
            f"llama-cpp-python {version} is not one we can drive (needed: >={oldest},<{beyond}); {INSTALL}"
        )


def check_functions(module: Any) -> None:
    """Refuse a module that lacks a function we call.

    :raises MissingLlamaCppError: naming the functions.
    """
    absent = [name for name in _NEEDED if not hasattr(module, name)]
    if absent:
        raise MissingLlamaCppError(
            f"llama-cpp-python {getattr(module, '__version__', '?')} lacks {', '.join(absent)}; {INSTALL}"
        )


def library() -> Any:
    """The module `llama_cpp`, ready for use.

    :raises MissingLlamaCppError: if it is not installed, cannot be loaded, or has another interface.
    """
    module = _loaded()
    # Whoever else uses llama.cpp in this process may have had it talk to somebody else.
    module.llama_log_set(_CALLBACKS[0], ctypes.c_void_p(0))
    return module


@cache
def _loaded() -> Any:
    try:
        module: Any = import_module("llama_cpp")
    except ModuleNotFoundError as error:
        raise MissingLlamaCppError(f"GGUF models need llama-cpp-python; {INSTALL}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingLlamaCppError(
            f"llama-cpp-python cannot be loaded ({error}); install it anew: {INSTALL}"
        ) from error
    check_version(getattr(module, "__version__", "0"))
    check_functions(module)
    callback = module.llama_log_callback(_LOG.hear)
    _CALLBACKS[:] = [callback]
    module.llama_backend_init()
    return module
