"""`llm dllm info`: what would be loaded, which backend computes it, and why."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from click.testing import CliRunner
from click.testing import Result

from dllm_kernels.decoder import KERNEL
from dllm_kernels.dispatch import choose
from dllm_plugins.__main__ import main
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.placement import DTYPES
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.models import auto_backend
from dllm_plugins.models import load_model

from ..golden.cases import CLONED

Run = Callable[..., Result]
Make = Callable[..., Path]


def line(shown: str, title: str) -> str:
    """What follows a title."""
    (found,) = [one for one in shown.splitlines() if one.startswith(f"{title} ")]
    return found.removeprefix(title).strip()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_backend_that_auto_is(run: Run, tiny_folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of the default model is what is loaded."""
    monkeypatch.setenv("DLLM_DTYPE", dtype)
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    loaded = load_model("dllm", base=tiny_folder, denoiser=denoiser, dtype=dtype).denoiser
    backend, _, reason = line(run("dllm", "info").stdout, "backend").partition(": ")
    assert backend == "kernels"
    assert isinstance(loaded, TriModeDenoiser)
    best = choose(KERNEL, torch.device("cpu"), DTYPES[dtype], loaded.decoder.weights.shape.sizes())
    assert type(loaded.decoder) is best.load()
    assert f"the block decoder {best.name!r}" in reason
    assert "block decoder" in reason
    assert auto_backend("dllm", base=tiny_folder, device_map={"": "cpu"}).backend == "torch"
    assert "one device" in auto_backend("dllm", base=tiny_folder, device_map={"": "cpu"}).reason


@pytest.mark.parametrize("case", ["sdar", "llada_dense", "stable_diffcoder"])
def test_the_backend_of_a_checkpoint(run: Run, checkpoint: Make, case: str) -> None:
    """The same for one that was added."""
    place = checkpoint(case)
    run("dllm", "add", str(place), "mine", "--mask-id", "5")
    shown = run("dllm", "info", "-m", "mine").stdout
    kernels = isinstance(load_model(str(place), dtype="float32").denoiser, KernelDenoiser)
    backend, _, reason = line(shown, "backend").partition(": ")
    assert backend == ("kernels" if kernels else "torch")
    assert "block decoder" in reason
    assert line(shown, "place") == str(place)
    sampler = load_model(str(place), mask_id=5).denoiser.spec.samplers["diffusion"]
    assert line(shown, "sampler") == line(run("dllm", "models").stdout.partition("mine")[2], "  sampler")
    assert line(shown, "sampler").startswith(f"{sampler}: the own sampler of family")


def test_reasons_against_the_block_decoder() -> None:
    """Options decide, too."""
    place = str(CLONED["sdar"] / "checkpoint")
    assert "one device" in auto_backend(place, device_map="auto").reason
    assert auto_backend(place, weights="int8").backend == "kernels"
    assert auto_backend(place, compile=True).backend == "torch"


def test_a_backend_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment; then `auto` chooses nothing."""
    monkeypatch.setenv("DLLM_BACKEND", "torch")
    assert line(run("dllm", "info").stdout, "backend") == "torch: as asked for"
    assert run("-m", "dllm", "how?", "-o", "max_tokens", "4").stdout
    monkeypatch.setenv("DLLM_BACKEND", "luck")
    assert "'luck'" in run("-m", "dllm", "how?", code=1).output


def test_before_setup_and_without_llama_cpp(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is fetched; what is missing is named with what installs it."""

    def missing(_name: str) -> NoReturn:
        raise PackageNotFoundError

    monkeypatch.delenv("DLLM_BASE")
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("dllm_plugins.llama_cpp.load.version", missing)
    shown = run("dllm", "info").stdout
    assert "not known before" in line(shown, "backend")
    assert "python -m dllm_plugins setup" in line(shown, "base")
    assert line(shown, "llama.cpp") == "not installed: pip install 'dllm-plugins[gguf]'"


def test_modes_of_a_checkpoint_are_its_own(run: Run, checkpoint: Make) -> None:
    """The same names as of the model that is loaded, by llm's name and by the place."""
    place = checkpoint("llada_dense")
    run("dllm", "add", str(place), "mine")
    modes = load_model(str(place), dtype="float32").denoiser.spec.modes
    assert line(run("dllm", "info", "-m", "mine").stdout, "modes") == ", ".join(modes)
    ours = CliRunner().invoke(main, ["info", str(place)])
    assert line(ours.stdout, "modes") == ", ".join(modes)
    wrong = CliRunner().invoke(main, ["info", "nothing"])
    assert wrong.exit_code == 1
    assert "Traceback" not in wrong.output
    assert "'nothing'" in wrong.output
