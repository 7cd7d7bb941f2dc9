"""llama.cpp on the default model's base: a pass over a block behind a prefix, and decoding token by token.

Through the low-level functions of llama-cpp-python. The GGUF file that the base was
unpacked from (Q4_1) is quantised anew by llama.cpp itself. What is set, and why, is in the
comments; what happens otherwise was measured, or aborts the process.
"""

import ctypes
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.default_model.base_model import gguf_path
from progress import show

#: llama.cpp's numbers of file types.
TYPES = {"q4_0": 2, "bf16": 32}
ERROR = 4


def missing() -> str | None:
    """Why llama.cpp cannot take part here; None if it can."""
    if importlib.util.find_spec("llama_cpp") is None:
        return "llama-cpp-python is not installed; install dllm-plugins[gguf], which compiles for some minutes"
    if not gguf_path().exists():
        return f"{gguf_path()} is missing; run `python -m dllm_plugins setup --force`"
    return None


def library() -> Any:
    """The module, quiet but for errors."""
    import llama_cpp

    if not hasattr(llama_cpp, "dllm_log"):
        # The package's own callback counts levels otherwise than ggml does and hides errors.
        @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
        def log(level: int, text: bytes, _: object) -> None:
            if level == ERROR:
                sys.stderr.write(text.decode("utf8", "replace"))

        llama_cpp.dllm_log = log
        llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    return llama_cpp


def quantised(kind: str, folder: Path) -> Path:
    """The base model in another of :data:`TYPES`, written to `folder`."""
    lib, path = library(), folder / f"{kind}.gguf"
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = TYPES[kind], 2, True
    if code := lib.llama_model_quantize(bytes(gguf_path()), bytes(path), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp could not quantise {gguf_path()} to {kind} (code {code})")
    return path


def contestants(folder: Path) -> dict[str, Path]:
    """The shipped file, and the same weights in Q4_0 in a file made here; none where llama.cpp takes no part."""
    if (reason := missing()) is not None:
        show(f"llama.cpp does not take part: {reason}")
        return {}
    return {"q4_1": gguf_path(), "q4_0": quantised("q4_0", folder)}


@dataclass(frozen=True, slots=True)
class Placed:
    """A token of a pass: where it stands, in which sequence, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int = 0
    wanted: bool = True


class LlamaCpp:
    """Sequences of one model.

    :param path: a GGUF file.
    :param context: most positions of a sequence.
    :param sequences: how many at once.
    """

    def __init__(self, path: Path, threads: int, context: int = 1024, sequences: int = 1) -> None:
        self._lib = lib = library()
        loading = lib.llama_model_default_params()
        loading.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(bytes(path), loading)
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * sequences, sequences
        # A block that is not causal must fit into one micro-batch, or the process aborts.
        params.n_batch = params.n_ubatch = 512
        # Its own default is four, whatever the machine has.
        params.n_threads = params.n_threads_batch = threads
        # On a CPU flash attention makes blocks slower.
        params.flash_attn_type, params.no_perf = 0, True
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp could not open {path}")
        self.vocabulary = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))
        self._batch = lib.llama_batch_init(params.n_ubatch, 0, 1)
        self._most = int(params.n_ubatch)

    def rewind(self, length: int, sequence: int = 0) -> None:
        """Forget all but the first `length` positions of a sequence."""
        self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._context), sequence, length, -1)

    def decode(self, tokens: Sequence[int], begin: int, *, causal: bool, wanted: Sequence[int]) -> NDArray[np.float32]:
        """Logits float32 [wanted, V] of tokens at positions from `begin` on; overwritten by the next call.

        :param wanted: indices into `tokens`.
        """
        asked = set(wanted)
        return self.forward([Placed(token, begin + i, 0, i in asked) for i, token in enumerate(tokens)], causal=causal)

    def forward(self, tokens: Sequence[Placed], *, causal: bool = True) -> NDArray[np.float32]:
        """Logits float32 [wanted, V] of tokens of any sequences; overwritten by the next call."""
        if len(tokens) > self._most:
            raise ValueError(f"{len(tokens)} tokens in one pass; llama.cpp was set up for {self._most}")
        lib, batch = self._lib, self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token.token, token.position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, token.sequence
            batch.logits[place] = int(token.wanted)
        lib.llama_set_causal_attn(self._context, causal)
        if code := lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}")
        lib.llama_synchronize(self._context)
        count = sum(token.wanted for token in tokens)
        return np.ctypeslib.as_array(lib.llama_get_logits(self._context), shape=(count, self.vocabulary))

    def prefill(self, tokens: Sequence[int]) -> int:
        """Start anew with these tokens; returns the most probable next one."""
        self.rewind(0)
        return int(self.decode(tokens, 0, causal=True, wanted=[len(tokens) - 1])[0].argmax())

    def greedy(self, tokens: Sequence[int], count: int) -> tuple[list[int], float]:
        """`count` tokens behind these, one a pass, and the seconds that all but the first took."""
        found = [self.prefill(tokens)]
        began = time.perf_counter()
        while len(found) < count:
            logits = self.decode([found[-1]], len(tokens) + len(found) - 1, causal=True, wanted=[0])
            found.append(int(logits[0].argmax()))
        return found, time.perf_counter() - began
