"""The weights of one GGUF file in llama.cpp's memory."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.values import check_values
from dllm_plugins.llama_cpp.library import Handle
from dllm_plugins.llama_cpp.library import complaints
from dllm_plugins.llama_cpp.library import failed
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.messages import message

#: llama.h, llama_load_mode.
_READ, _MAP = 0, 1


#: Where Linux says how much processor time a container gets: microseconds of so many, or `max`.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Processors this process may use: no more than it is bound to, nor than its container has time for."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(found, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return found


class GgufModel:
    """Weights, vocabulary and metadata of a file; contexts decode with it. Not thread-safe.

    :param threads: for every pass; None for the cores available. llama.cpp's own default is 4, on any machine.
    :param mmap: map the file, so that the system reads it on demand; False to copy it into memory.
    :raises CheckpointError: if the file is missing or damaged.
    :raises GgufError: if llama.cpp cannot load it, or works in a way that block decoding cannot use.
    """

    #: llama.h, llama_rope_type: none, pairs side by side, pairs half a head apart.
    ropes: tuple[int, ...] = (-1, 0, 2)

    def __init__(self, path: str | Path, threads: int | None = None, mmap: bool = True) -> None:
        if threads is not None and threads < 1:
            raise OptionError(f"threads={threads} does not do; give at least 1, or leave it out for all cores")
        self.path = Path(path)
        self.threads = threads or cores()
        self.header: Header = read_header(self.path)
        check_values(self.header)
        self._library = library()
        complaints()
        params = self._library.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = _MAP if mmap else _READ
        lib, name = self._library, os.fsencode(self.path)
        #: Contexts hold on to it: they must go before the weights do.
        self.handle = Handle(lib.llama_model_free, lib.llama_model_load_from_file, name, params)
        if not self.handle.pointer:
            raise failed(f"llama.cpp cannot load {self.path}", "convert the checkpoint again, or use another file")
        self._contexts: WeakSet[Any] = WeakSet()
        try:
            self._check()
        except GgufError:
            self.close()
            raise

    def _check(self) -> None:
        """Refuse memories whose keys cannot be taken back position by position."""
        lib, model = self._library, self.pointer
        reasons = {
            "keeps a running state instead of keys": lib.llama_model_is_recurrent(model),
            "keeps a running state beside its keys": lib.llama_model_is_hybrid(model),
            "sees a sliding window of its past": lib.llama_model_n_swa(model) > 0,
            "has an encoder": lib.llama_model_has_encoder(model),
            "has several positions a token": lib.llama_model_rope_type(model) not in self.ropes,
        }
        found = [reason for reason, holds in reasons.items() if holds]
        if found:
            raise GgufError(
                message(
                    "{} ({}) {}, which cached blocks cannot use; load the checkpoint itself with {backend}='torch'",
                    self.path,
                    self.header.architecture,
                    " and ".join(found),
                )
            )

    @property
    def pointer(self) -> Any:
        """llama.cpp's handle.

        :raises GgufError: once the model is closed.
        """
        if self.closed:
            raise GgufError(f"{self.path} is closed; load it again")
        return self.handle.pointer

    @cached_property
    def vocabulary(self) -> int:
        """How many ids tokens and logits range over."""
        return int(self._library.llama_vocab_n_tokens(self._library.llama_model_get_vocab(self.pointer)))

    @cached_property
    def width(self) -> int:
        """Numbers in a token's embedding."""
        return int(self._library.llama_model_n_embd(self.pointer))

    @cached_property
    def cached_numbers(self) -> int:
        """Numbers in the keys and values of a position, in all layers."""
        lib, said = self._library, self.header.value
        size = self.width // int(lib.llama_model_n_head(self.pointer))
        both = int(said("attention.key_length", size)) + int(said("attention.value_length", size))
        return int(lib.llama_model_n_layer(self.pointer)) * int(lib.llama_model_n_head_kv(self.pointer)) * both

    @cached_property
    def context(self) -> int:
        """Positions it was trained on."""
        return int(self._library.llama_model_n_ctx_train(self.pointer))

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The file's keys and values."""
        return self.header.metadata

    @cached_property
    def has_memory(self) -> bool:
        """Whether keys are kept between passes; dream, llada, llada-moe and rnd1 forward whole canvases only."""
        lib = self._library
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 32
        params.n_seq_max = params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = 0
        context = Handle(lib.llama_free, lib.llama_init_from_model, self.pointer, params, needs=self.handle)
        if not context.pointer:
            raise failed(f"llama.cpp cannot make a context for {self.path}", "close other programs to free memory")
        found = bool(lib.llama_get_memory(context.pointer))
        context.free()
        return found

    def register(self, context: Any) -> None:
        """A context that must be closed before the weights go."""
        self._contexts.add(context)

    @property
    def closed(self) -> bool:
        """Whether its memory was given back."""
        return not self.handle.free.alive

    def close(self) -> None:
        """Give the memory of the weights and of all contexts back; a second time does nothing."""
        for context in list(self._contexts):
            context.close()
        self.handle.free()
