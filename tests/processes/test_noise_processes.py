"""What open positions hold, and the draws behind it."""

import torch

from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.processes.masked import MaskedProcess
from dllm_plugins.processes.uniform import UniformProcess

SPEC = ModelSpec("toy", 50, 50, 99, frozenset(), 8, 0, ("diffusion",), False, "none", "approximate")


def test_both_processes_are_registered() -> None:
    """Strategies find them by name."""
    found: dict[str, NoiseProcess] = plugins.processes()
    assert {"masked", "uniform"} <= found.keys()


def test_masked_noise_draws_nothing() -> None:
    """It is the mask id, and the answer does not depend on a seed."""
    noise = RowNoise(1)
    assert MaskedProcess().noised(3, SPEC, noise, Key(Purpose.PLUGIN, 1)) == (50, 50, 50)
    assert not noise.drawn


def test_uniform_noise_covers_the_vocabulary_and_nothing_else() -> None:
    """Every id turns up about equally often; the virtual mask id never does."""
    noise = RowNoise(1)
    counts = torch.bincount(
        torch.tensor(UniformProcess().noised(20000, SPEC, noise, Key(Purpose.PLUGIN))), minlength=51
    )
    assert counts[50] == 0
    assert 300 < counts[:50].min() <= counts[:50].max() < 500
    assert noise.drawn


def test_uniform_noise_depends_on_seed_and_key_alone() -> None:
    """The same key gives the same ids, whatever was drawn in between."""
    process, noise = UniformProcess(), RowNoise(7)
    first = process.noised(16, SPEC, noise, Key(Purpose.PLUGIN, 3))
    assert process.noised(16, SPEC, noise, Key(Purpose.PLUGIN, 3, 1)) != first
    assert process.noised(16, SPEC, noise, Key(Purpose.PLUGIN, 3)) == first
    assert process.noised(16, SPEC, RowNoise(8), Key(Purpose.PLUGIN, 3)) != first


def test_categorical_draws_follow_the_probabilities() -> None:
    """Frequencies are right, and what has no probability is never drawn, first and last ids included."""
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0]).repeat(10000, 1)
    drawn = RowNoise(3).categorical(Key(Purpose.PLUGIN, 5, 1), probabilities)
    frequency = torch.bincount(drawn, minlength=6) / len(drawn)
    assert torch.allclose(frequency, probabilities[0], atol=0.02)
    assert set(drawn.tolist()) == {1, 3, 4}
