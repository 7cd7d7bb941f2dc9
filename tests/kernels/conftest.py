"""The compiled kernels, built once."""

import pytest

from dllm_kernels import build
from dllm_kernels.compiled import library
from dllm_kernels.dispatch import KernelError


@pytest.fixture(scope="session")
def built() -> None:
    """Where there is no compiler there is nothing to test."""
    try:
        build.compiler()
    except KernelError as error:
        pytest.skip(str(error))
    target = library.best_target()
    if not library.place(target).exists():
        build.build(target)
