"""The Triton head: in Triton's interpreter, and through its compiler."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.head import unmask
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict
from tests.kernels.heads import DTYPES
from tests.kernels.heads import TOLERANCE
from tests.kernels.heads import assert_close
from tests.kernels.heads import draw_gumbel
from tests.kernels.heads import draw_inputs
from tests.kernels.heads import exact
from tests.kernels.heads import hard_logits

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.slow
def test_in_the_interpreter() -> None:
    """All functions called check_*, in a process of their own: Triton decides on import whether to interpret."""
    command = [sys.executable, "-m", "pytest", "-o", "python_functions=check_*", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


def assert_triton_is_right(hidden: Tensor, weight: Tensor, same_tokens: bool, **options: Any) -> None:
    expected = unmask(hidden, weight, **options, implementation="reference")
    found = unmask(hidden, weight, **options, implementation="triton")
    assert_close(found, expected, TOLERANCE[weight.dtype])
    sure = torch.ones_like(expected.token, dtype=torch.bool) if same_tokens else expected.margin > 0.03
    assert torch.equal(found.token[sure], expected.token[sure])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def check_triton_equals_the_reference(dtype: torch.dtype) -> None:
    for rows, size, width in ((1, 1, 8), (5, 300, 70), (17, 1025, 64)):
        hidden, weight = draw_inputs(rows, size, width, dtype)
        bias = torch.randn(size, generator=torch.Generator().manual_seed(2)).to(dtype)
        assert_triton_is_right(hidden, weight, False)
        assert_triton_is_right(hidden, weight, False, bias=bias)
    forced = torch.full((17,), -1).index_fill_(0, torch.tensor([3, 16]), 1024)
    assert_triton_is_right(hidden, weight, False, forced=forced, banned=torch.arange(5, 700))
    assert_triton_is_right(hidden, weight, True, banned=torch.arange(1025))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def check_triton_on_exact_logits(dtype: torch.dtype) -> None:
    for logits in hard_logits(dtype).values():
        assert_triton_is_right(*exact(logits[:, -1500:]), True)
    generator = torch.Generator().manual_seed(8)
    logits = (torch.randn(18, 9000, generator=generator) * 2).to(dtype)
    gumbel = draw_gumbel(18, 9000)
    temperature = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64).repeat(6)
    draws = [Draw(float(warmth), gumbel=noise) for warmth, noise in zip(temperature, gumbel, strict=True)]
    wanted = predict(logits, draws).token
    for noise in (gumbel, lambda place, start, stop: gumbel[place, start:stop]):
        found = unmask(*exact(logits), temperature=temperature, noise=noise, implementation="triton")
        assert torch.equal(found.token, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def check_one_number_draws_what_all_logits_say(dtype: torch.dtype) -> None:
    """Beside noise and greedy positions, on the border between two ids, and with ids banned or forced."""
    for wide in (*hard_logits(dtype).values(), draw_inputs(18, 3000, 8, torch.float32)[1].T[:5]):
        logits = wide[:, -1500:].to(dtype)
        warm = torch.tensor([0.7, 1.0, 0.0], dtype=torch.float64).repeat(7)[: len(logits)]
        reached = torch.softmax(logits.double() / torch.where(warm > 0, warm, 1.0)[:, None], -1).cumsum(-1)
        gumbel = draw_gumbel(*logits.shape)
        for own in (reached[:, logits.shape[1] // 2], torch.rand(len(logits), dtype=torch.float64)):
            number = own.clamp(1e-300, 1 - 2**-53)
            number[torch.arange(len(logits)) % 3 > 0] = torch.nan
            noise = gumbel if len(logits) > 1 else None
            assert_triton_is_right(*exact(logits), True, temperature=warm, noise=noise, uniform=number)
    hidden, weight = exact(logits)
    halves = torch.full((len(logits),), 0.5, dtype=torch.float64)
    forced = torch.full((len(logits),), -1).index_fill_(0, torch.tensor(3), 1200)
    options: dict[str, Any] = {"temperature": 1.0, "uniform": halves, "bias": torch.zeros(1500, dtype=dtype)}
    assert_triton_is_right(hidden, weight, True, **options, forced=forced, banned=torch.arange(5, 700))
    assert_triton_is_right(hidden, weight, True, **options, banned=torch.arange(1500))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def check_a_row_has_the_same_bits_in_any_company(dtype: torch.dtype) -> None:
    """Of the kernel and the join; numbers whose sums are exact, as numpy multiplies for the interpreter."""
    hidden, weight = ((tensor * 2).round() / 4 for tensor in draw_inputs(25, 700, 96, torch.float32))
    hidden, weight = hidden.to(dtype), (weight / 2).to(dtype)
    whole = unmask(hidden, weight, implementation="triton")
    for rows in (1, 2, 9, 16):
        for start in (0, 7):
            part = slice(start, start + rows)
            found = unmask(hidden[part], weight, implementation="triton")
            for name in ("token", "probability", "entropy", "margin"):
                assert torch.equal(getattr(found, name), getattr(whole, name)[part])


#: Triton's compiler needs no GPU. In a process of its own: the interpreter is chosen on import.
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dllm_kernels.head.fused import head_blocks
from dllm_kernels.head.fused import head_picked

for dtype in ("bf16", "fp32"):
    types = dict.fromkeys(("hidden", "weight", "bias"), "*" + dtype)
    types |= {"banned": "*i8", "forced": "*i64", "temperature": "*fp64", "noise": "*fp64"}
    types |= {"numbers": "*fp32", "scores": "*fp64", "heat": "*fp64", "ids": "*i32"}
    sizes = ("count", "vocabulary", "width", "blocks", "plane", "first_block", "noise_width")
    types |= dict.fromkeys(sizes, "i32")
    fixed = dict.fromkeys(("has_bias", "has_banned", "has_forced", "has_noise", "has_heat"), True)
    fixed |= {"rows": 16, "block": 128, "inner": 64, "interpreted": False}
    types |= dict.fromkeys(fixed, "constexpr")
    compiled = triton.compile(ASTSource(head_blocks, types, fixed), target=GPUTarget("cuda", 80, 32))
    assert "ptx" in compiled.asm
    types = dict.fromkeys(("hidden", "weight", "bias"), "*" + dtype)
    types |= {"banned": "*i8", "forced": "*i64", "chosen": "*i64", "picked": "*fp32"}
    types |= dict.fromkeys(("count", "vocabulary", "width"), "i32")
    fixed = {name: value for name, value in fixed.items() if name not in ("has_noise", "has_heat")}
    types |= dict.fromkeys(fixed, "constexpr")
    assert "ptx" in triton.compile(ASTSource(head_picked, types, fixed), target=GPUTarget("cuda", 80, 32)).asm
"""


@pytest.mark.slow
def test_it_compiles_for_a_gpu(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
