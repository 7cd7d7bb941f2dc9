"""One model that drafts and verifies by itself (S2D2), from a checkpoint's files: forms, threads, streams, hosts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.constraints.values import Regex
from dllm_plugins.sharing import SharedModel


@pytest.fixture(scope="module")
def sdar(drafter_folder: Path) -> Model:
    """On the block decoder."""
    return load_model(str(drafter_folder), dtype="float32", backend="kernels")


def requests(model: Model, mode: str, **options: Any) -> list[Request]:
    """Ten, greedy and drawn."""
    made = []
    for number in range(10):
        sampling = {"temperature": 0.7, "seed": number} if number % 2 else {}
        config = SamplingConfig(mode=mode, max_new_tokens=10 + number, **sampling, **options)
        made.append(Request(model.encode_text(f"{'the sky is ' * (number % 3)}{number}"), config))
    return made


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_forms(sdar: Model, drafter_folder: Path, backend: str) -> None:
    """A constraint and stop strings, on the block decoder and on transformers' class."""
    model = sdar if backend == "kernels" else load_model(str(drafter_folder), dtype="float32", backend=backend)
    for options in ({"constraint": Regex("[a-c]{8}f")}, {"stop": ["a"]}):
        slow, fast = (model.engine().generate(requests(model, mode, **options)[:4]) for mode in ("s2d2_ar", "s2d2"))
        assert [(one.tokens, one.text, one.reason) for one in fast] == [
            (one.tokens, one.text, one.reason) for one in slow
        ]


def test_ten_threads(sdar: Model) -> None:
    """Threads that share the model get what each would get alone."""
    alone = [sdar.engine().generate([request])[0] for request in requests(sdar, "s2d2_ar")]
    shared = SharedModel(sdar)
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda request: [*shared.stream(request)][-1], requests(sdar, "s2d2")))
    assert [one.tokens for one in found] == [one.tokens for one in alone]
    assert [one.text for one in found] == [one.text for one in alone]
