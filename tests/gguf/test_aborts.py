"""Where llama.cpp would abort the process or report success with a wrong result, ours works or raises."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.size import Size

from . import tiny

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

SMALL = Size(streams=1, positions=256, tokens=32)


def long_block(context: Context) -> None:
    stream = context.open()
    assert context.decode([Span(stream, 0, [1] * 300, wanted=range(300))], causal=False)[0].shape[0] == 300


def long_prefix(context: Context) -> None:
    assert context.decode([Span(context.open(), 0, [1] * 300)], causal=True)[0].shape[0] == 0


def long_canvas(context: Context) -> None:
    assert context.decode([Span(0, 0, [1] * 300, wanted=[0, 299])], causal=False)[0].shape[0] == 2


def many_streams(context: Context) -> None:
    streams = [context.open() for _ in range(40)]
    rows = context.decode([Span(stream, 0, [1, 2], wanted=[0, 1]) for stream in streams], causal=False)
    assert all(np.array_equal(row, rows[0]) for row in rows)


def part_of_a_stream(context: Context) -> None:
    stream = context.open()
    context.decode([Span(stream, 0, [1] * 16)], causal=True)
    assert context.length(context.copy(stream, 8)) == 8


def no_such_stream(context: Context) -> None:
    with pytest.raises(GgufError, match="stream 300 is not open"):
        context.cut(300, 0)


CASES: dict[str, tuple[str, Callable[[Context], None]]] = {
    "block longer than a micro-batch": ("llama", long_block),
    "more tokens than a batch": ("llama", long_prefix),
    "canvas longer than a micro-batch": ("dream", long_canvas),
    "more rows than outputs": ("llama", long_block),
    "more streams than tokens": ("llama", many_streams),
    "copy of a part of a stream": ("llama", part_of_a_stream),
    "stream that does not exist": ("llama", no_such_stream),
}


@pytest.mark.skipif(os.name != "posix", reason="an abort is told by its signal")
@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_aborts_and_ours_does_not(tmp_path: Path, case: str) -> None:
    architecture, ours = CASES[case]
    path = tiny.tiny(tmp_path, architecture).path
    script = Path(__file__).with_name("aborting.py")
    done = subprocess.run(
        [sys.executable, str(script), case, str(path)],
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGABRT, done.stderr[-2000:]
    assert "GGML_ASSERT" in done.stderr
    ours(Context(GgufModel(path), "F32", SMALL))


def test_unequal_lengths_would_be_wrong_without_a_word(tmp_path: Path) -> None:
    """What the check prevents: success is reported, and logits differ by far more than rounding does."""
    context = Context(GgufModel(tiny.tiny(tmp_path).path), "F32")
    lengths = (16, 5, 9)
    runs = [Span(context.open(), 0, tiny.tokens(length), wanted=range(length)) for length in lengths]
    with pytest.raises(GgufError, match=r"\[16, 5, 9\] positions cannot share a call"):
        context.decode(runs, causal=False)
    together = context._call(runs, causal=False, hidden=False)
    for run in runs:
        context.cut(run.stream, 0)
    alone = [context.decode([run], causal=False)[0] for run in runs]
    assert max(abs(one - other).max() for one, other in zip(together, alone, strict=True)) > 0.1
