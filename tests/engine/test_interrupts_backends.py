"""Interrupts where keys are kept by others: llama.cpp's streams, the pages of GPUs, prefixes of finished rows."""

import gc
import itertools
import os
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dllm_kernels.attention import pages
from dllm_kernels.decoder import gpu
from dllm_kernels.decoder import graphs
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.gpu import GpuDecoder
from dllm_plugins import Model
from dllm_plugins import engine as engine_module
from dllm_plugins import kept_prefixes as kept
from dllm_plugins import sharing
from dllm_plugins.denoisers import kernel
from dllm_plugins.denoisers import rows
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.errors import PassError
from dllm_plugins.sharing import SharedModel
from dllm_plugins.training.solvable import Letters

from ..kernels.recordings import Recorder
from ..kernels.test_gpu_decoder import dense
from ..modes.tiny_models import random_model
from ..modes.tiny_models import spec
from .injecting import Injector
from .test_interrupts import outcome
from .test_interrupts import requests

needs_llama_cpp = pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the extra gguf")
#: What makes a model, what may be interrupted, what is left of the rows once no prefix is kept.
Backend = tuple[Callable[[], Model], tuple[ModuleType, ...], Callable[[Any], int]]
ALWAYS = (engine_module, sharing, kept, rows)


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The decoder for GPUs, on the CPU: passes are recorded, and the second row makes the pool grow."""
    monkeypatch.setattr(pages, "FIRST", 2)
    monkeypatch.setattr(gpu, "_attention", lambda *_: ("reference", dense))
    network: Any = random_model("ar", "diffusion").denoiser
    weights = take_weights(network.model)

    def make() -> Model:
        decoder = GpuDecoder(weights, record=Recorder())
        return Model("tiny", DecoderDenoiser(decoder, spec("ar", "diffusion")), Letters())

    def held(denoiser: Any) -> int:
        pool: pages.PagePool = denoiser.decoder._pool
        return int(pool.data.shape[2]) - 1 - pool.free

    return make, (kernel, pages, graphs), held


@pytest.fixture
def streamed(tmp_path: Path) -> Iterator[Backend]:
    """llama.cpp, whose context is replaced by a larger one for the second row and the third."""
    from dllm_plugins.llama_cpp import context
    from dllm_plugins.llama_cpp import prefix
    from dllm_plugins.llama_cpp import rows as llama_rows
    from dllm_plugins.llama_cpp import running as llama_running
    from dllm_plugins.llama_cpp import state
    from dllm_plugins.llama_cpp import streams
    from dllm_plugins.llama_cpp.denoiser import LlamaCppDenoiser
    from dllm_plugins.llama_cpp.model import GgufModel

    from ..gguf import running
    from ..gguf import tiny

    both, made = tiny.tiny(tmp_path, "qwen3"), list[Any]()

    def make() -> Model:
        while made:
            made.pop().close()
        fields: dict[str, Any] = {
            "modes": ("ar", "diffusion"),
            "samplers": {"ar": "nemotron_ar", "diffusion": "sdar"},
        }
        made.append(LlamaCppDenoiser(GgufModel(both.path), running.spec(**fields), "F32"))
        return Model("tiny", made[0], Letters())

    def held(denoiser: Any) -> int:
        denoiser._shelf._empty()
        return int(denoiser.context.streams)

    yield make, (llama_rows, llama_running, context, prefix, state, streams), held
    while made:
        made.pop().close()


def interrupted(backend: Backend, mode: str, right: list[tuple[int, ...]], position: int) -> Injector:
    """Two callers have begun, a third is interrupted at this place; afterwards all of them ask once more."""
    make, modules, held = backend
    shared = SharedModel(make())
    denoiser: Any = shared.model.denoiser
    others = [shared.stream(request) for request in requests(mode)[:2]]
    for stream in others:
        next(stream)
    injector = Injector(position, *modules, *ALWAYS)
    with suppress(KeyboardInterrupt), injector, closing(shared.stream(requests(mode)[2])) as late:
        list(itertools.islice(late, 3))
    for answer, expected in zip([outcome(stream) for stream in others], right, strict=False):
        assert isinstance(answer, PassError) or answer == expected, injector.where
    # An error leads back to all that was there when it was raised.
    del answer
    # From what was kept before, too.
    assert [finish.tokens for finish in shared.generate(requests(mode))] == right, injector.where
    assert denoiser.open_rows == 0, injector.where
    shared.prefixes.clear()
    gc.collect()
    assert held(denoiser) == 0, injector.where
    return injector


def positions(backend: Backend, mode: str) -> int:
    """How many interrupts came, each some lines later than the one before; all of them were survived."""
    step = 13 if os.environ.get("DLLM_FUZZ_SECONDS") else 251
    model = backend[0]()
    right = [model.engine().generate([request])[0].tokens for request in requests(mode)]
    return next(
        number
        for number, position in enumerate(itertools.count(1, step))
        if not interrupted(backend, mode, right, position).raised
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_pages(paged: Backend, mode: str) -> None:
    assert positions(paged, mode) > 2


@pytest.mark.slow
@needs_llama_cpp
@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_streams(streamed: Backend, mode: str) -> None:
    assert positions(streamed, mode) > 2
