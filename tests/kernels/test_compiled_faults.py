"""A fault in any thread of the compiled kernels ends its call, and nothing else."""

import os
import resource
import signal
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dllm_kernels.compiled import library
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.dispatch import KernelError

from .decoders import SHAPES
from .decoders import drawn
from .decoders import network
from .decoders import row_of
from .decoders import run

pytestmark = pytest.mark.usefixtures("built")

Call = Callable[[], Tensor]


@pytest.fixture(params=["own threads", "torch's threads"])
def pool(request: pytest.FixtureRequest) -> Iterator[str]:
    """Two threads, of either kind."""
    before, kernels = torch.get_num_threads(), library.load()
    torch.set_num_threads(2)
    if request.param == "own threads":
        kernels.dllm_use_openmp(None, None, None)
    yield request.param
    kernels.dllm_fail(-1, 0, 0)
    library.share_threads(kernels)
    torch.set_num_threads(before)


def calls_of(dtype: torch.dtype = torch.float32) -> dict[str, Call]:
    """All that the library computes, each the same every time."""
    decoder = CompiledDecoder(take_weights(network("llama", dtype, **SHAPES[1])))
    hidden = torch.randn(9, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = torch.ones(9, 9).bool()
    return {
        "forward": lambda: run(decoder, [(row_of(decoder), drawn(9), torch.arange(9), seen)])[0],
        "linear": lambda: decoder.logits(hidden),
        "unmask": lambda: decoder.unmask(hidden, [0.0] * 9, [None] * 9).entropy,
    }


@pytest.mark.parametrize("error", [MemoryError, KernelError])
def test_a_fault_in_any_thread_ends_the_call_and_no_more(pool: str, error: type[Exception]) -> None:
    """At the first meeting, in the middle, at the last one; the next call is right."""
    fail = library.load().dllm_fail
    for name, call in calls_of().items():
        expected = call()
        for thread in (0, 1):
            for looks in (0, 1, 7, 17) if name == "forward" else (0,):
                fail(thread, looks, error is MemoryError)
                with pytest.raises(error, match=r"9 (positions|rows)"):
                    call()
                assert torch.equal(call(), expected), (name, thread, looks)


def test_faults_of_one_caller_are_no_fault_of_another(pool: str) -> None:
    """Several Python threads at once: each fault ends one call of one of them."""
    expected = {name: call() for name, call in calls_of().items()}
    fail = library.load().dllm_fail

    def work(number: int) -> int:
        failed = 0
        for rotate in range(12):
            for name, call in mine[number].items():
                if number == 0:
                    fail(rotate % 2, 0, 1)
                try:
                    assert torch.equal(call(), expected[name])
                except MemoryError:
                    failed += 1
        return failed

    mine = [calls_of() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        failures = sum(threads.map(work, range(3)))
    assert 0 < failures <= 36
    fail(-1, 0, 0)
    assert all(torch.equal(call(), expected[name]) for name, call in calls_of().items())


def _threads_here() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_without_more_threads_one_computes() -> None:
    """Where the system starts none, as for want of address space, the answer is the same."""
    calls = calls_of()
    expected = {name: call() for name, call in calls.items()}
    child = os.fork()
    if not child:
        signal.alarm(60)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + (24 << 20), resource.RLIM_INFINITY))
        torch.set_num_threads(64)
        same = all(torch.equal(call(), expected[name]) for name, call in calls.items())
        os._exit(0 if same and _threads_here() < 64 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_midst_of_a_call_can_compute() -> None:
    """The child inherits a pool whose lock is held by a thread that it does not have."""
    kernels, before = library.load(), torch.get_num_threads()
    kernels.dllm_use_openmp(None, None, None)
    torch.set_num_threads(2)
    busy, mine = calls_of()["forward"], calls_of()["linear"]
    expected, ended = mine(), False
    try:
        with ThreadPoolExecutor(1) as threads:
            work = threads.submit(lambda: [busy() for _ in iter(lambda: ended, True)])
            for _ in range(4):
                child = os.fork()
                if not child:
                    signal.alarm(60)
                    os._exit(0 if torch.equal(mine(), expected) else 1)
                assert os.waitpid(child, 0)[1] == 0
            ended = True
            work.result()
    finally:
        ended = True
        torch.set_num_threads(before)
        library.share_threads(kernels)
