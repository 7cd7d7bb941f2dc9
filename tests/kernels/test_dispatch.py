"""The dispatch: the best that can run is chosen, and every choice is explained."""

import pytest
import torch

from dllm_kernels import dispatch
from dllm_kernels.dispatch import Implementation
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import Shapes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def takes_all(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str | None:
    return None


def only_even(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str | None:
    if device.type != "cpu":
        return "cpu only"
    return f"width={shapes['width']} is odd" if shapes["width"] % 2 else None


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with a plain implementation and a choosy one, and nothing else."""
    monkeypatch.setattr(dispatch, "_registered", {})
    dispatch.register(Implementation("double", "reference", 0, lambda: "plain", takes_all))
    dispatch.register(Implementation("double", "fast", 5, lambda: "quick", only_even))


def test_the_best_that_can_run() -> None:
    """The highest rank, unless it refuses the shape or the device."""
    assert dispatch.kernel("double", CPU, torch.float32, {"width": 4}) == "quick"
    assert dispatch.kernel("double", CPU, torch.float32, {"width": 3}) == "plain"
    assert dispatch.kernel("double", GPU, torch.float32, {"width": 4}) == "plain"


def test_explained() -> None:
    """A line each: the reason of the refused one, and which is chosen."""
    lines = dispatch.explain("double", CPU, torch.bfloat16, {"width": 3}).splitlines()
    assert lines[1:] == ["  fast: width=3 is odd", "  reference: chosen"]
    lines = dispatch.explain("double", CPU, torch.bfloat16, {"width": 4}).splitlines()
    assert lines[1:] == ["  fast: chosen", "  reference: can run, but comes after the chosen one"]


def test_loaded_when_chosen_only() -> None:
    """An implementation whose import fails harms nobody who does not need it."""

    def broken() -> None:
        raise AssertionError("loaded in vain")

    dispatch.register(Implementation("double", "broken", 9, broken, lambda *_: "never here"))
    assert dispatch.kernel("double", CPU, torch.float32, {"width": 4}) == "quick"


def test_names() -> None:
    """Unknown kernels and taken names are refused with the ones there are."""
    with pytest.raises(KernelError, match="no kernel is called 'triple'; known kernels: double"):
        dispatch.kernel("triple", CPU, torch.float32, {})
    with pytest.raises(KernelError, match="already has an implementation 'fast'"):
        dispatch.register(Implementation("double", "fast", 7, lambda: None, takes_all))


def test_nothing_can_run() -> None:
    """Every reason is in the error."""
    dispatch.register(Implementation("rare", "fast", 5, lambda: None, only_even))
    with pytest.raises(KernelError, match=r"fast: cpu only\n  nothing can run"):
        dispatch.kernel("rare", GPU, torch.float32, {"width": 2})
