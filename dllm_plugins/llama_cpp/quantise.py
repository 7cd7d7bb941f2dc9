"""Quantising a GGUF file with llama.cpp's own routine."""

import ctypes
import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from threading import Thread
from typing import Any

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType

from dllm_plugins.errors import GgufError
from dllm_plugins.files.progress import Progress
from dllm_plugins.gguf.names import TensorEntry
from dllm_plugins.gguf.writing import size_of
from dllm_plugins.llama_cpp.library import failed
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.model import cores

#: llama.cpp's types that need no importance matrix: its number (llama.h, `llama_ftype`) and the type of most matrices.
TYPES = {
    "Q4_0": (2, "Q4_0"),
    "Q4_1": (3, "Q4_1"),
    "Q5_0": (8, "Q5_0"),
    "Q5_1": (9, "Q5_1"),
    "Q8_0": (7, "Q8_0"),
    "Q2_K": (10, "Q2_K"),
    "Q3_K_S": (11, "Q3_K"),
    "Q3_K_M": (12, "Q3_K"),
    "Q3_K_L": (13, "Q3_K"),
    "Q4_K_S": (14, "Q4_K"),
    "Q4_K_M": (15, "Q4_K"),
    "Q5_K_S": (16, "Q5_K"),
    "Q5_K_M": (17, "Q5_K"),
    "Q6_K": (18, "Q6_K"),
    "IQ4_NL": (25, "IQ4_NL"),
    "IQ4_XS": (30, "IQ4_XS"),
}
_POLL_SECONDS = 0.05


def available() -> None:
    """Refuse before anything is written.

    :raises MissingLlamaCppError: if llama.cpp is not installed.
    :raises GgufError: if it has no such routine.
    """
    if not hasattr(library(), "llama_model_quantize"):
        raise GgufError("this llama-cpp-python cannot quantise; install it anew, or choose F32, F16 or BF16")


def estimate(entries: Iterable[TensorEntry], quant: str) -> int:
    """About how many bytes the quantised file's tensors take."""
    block, width = GGML_QUANT_SIZES[GGMLQuantizationType[TYPES[quant][1]]]
    return sum(size_of(entry, "F32") if entry.exact else prod(entry.shape) // block * width for entry in entries)


def quantise(source: Path, target: Path, quant: str, progress: Progress, total: int) -> None:
    """Write `source` with its matrices as `quant`; rows that do not fill a block become a wider type.

    llama.cpp's call cannot be stopped. It runs beside this thread, so that Ctrl-C works; what it
    goes on writing then is a file that is removed.

    :param total: about how many bytes `target` will have, for the progress.
    :raises GgufError: with what llama.cpp said.
    """
    module = library()
    params = module.llama_model_quantize_default_params()
    params.ftype = TYPES[quant][0]
    params.nthread = cores()
    codes: list[int] = []
    worker = Thread(target=_run, args=(module, source, target, params, codes), daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(_POLL_SECONDS)
        done = target.stat().st_size if target.exists() else 0
        progress("quantise", min(done, total - 1), total)
    if codes != [0]:
        raise failed(f"llama.cpp could not quantise to {quant}", "choose another type, such as BF16 or Q8_0")
    with target.open("rb") as file:
        os.fsync(file.fileno())
    progress("quantise", total, total)


def _run(module: Any, source: Path, target: Path, params: Any, codes: list[int]) -> None:
    codes.append(module.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)))
