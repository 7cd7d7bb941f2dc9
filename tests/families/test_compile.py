"""`compile=True`: the same tokens, a cache that lasts, and refused where it is of no use."""

import json
import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from transformers import DiffusionGemmaForBlockDiffusion

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.families import compiling
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import Model

from ..golden.cases import CLONED

# PyTorch uses what it deprecates when inductor is imported first.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

_TOGETHER = TemporaryDirectory(prefix="dllm-compile-")
PROMPTS = ([5], [5, 6, 7], list(range(5, 18)))


@cache
def one_layer() -> Path:
    """SDAR's tiny checkpoint without its second layer: what is compiled of it is the first's once more."""
    source, folder = CLONED["sdar"] / "checkpoint", Path(_TOGETHER.name)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    tensors = load_file(source / "model.safetensors")
    assert any(".layers.1." in name for name in tensors)
    kept = {name: tensor for name, tensor in tensors.items() if ".layers.0." in name or ".layers." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(**options: Any) -> Model:
    return load_model(str(one_layer()), **{"dtype": "float32", "device": "cpu", **options})


def decoded(model: Model) -> list[Any]:
    """Tokens of prompts of three lengths, as one batch."""
    config = SamplingConfig(max_new_tokens=16)
    requests = [Request(prompt, config, stop_ids=frozenset()) for prompt in PROMPTS]
    together = model.engine().generate(requests)
    assert {finish.usage.numerics for finish in together} == {"approximate"}
    return [finish.tokens for finish in together]


@pytest.mark.slow
def test_same_tokens_and_a_cache_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, whatever the lengths; compiled code lies where the environment says, and is found again."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv(compiling.VARIABLE, str(tmp_path))
    model = load(compile=True)
    assert isinstance(model.denoiser, NativeDenoiser)
    expected = decoded(load(backend="torch"))
    assert decoded(model) == expected
    seen = sorted(tmp_path.rglob("*.so"))
    assert seen
    torch._dynamo.reset()
    counters.clear()
    assert decoded(load(compile=True)) == expected
    assert counters["aot_autograd"]["autograd_cache_hit"] > 0
    assert sorted(tmp_path.rglob("*.so")) == seen


def test_the_users_cache_unless_the_environment_names_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setenv(compiling.VARIABLE, "")
    assert compiling.folder() == tmp_path / "dllm-plugins" / "inductor"
    load(compile=True)
    assert os.environ[compiling.VARIABLE] == str(tmp_path / "dllm-plugins" / "inductor")
    monkeypatch.setenv(compiling.VARIABLE, str(tmp_path / "own"))
    load(compile=True)
    assert os.environ[compiling.VARIABLE] == str(tmp_path / "own")


def test_off_unless_asked_for() -> None:
    assert isinstance(load().denoiser, KernelDenoiser)
    plain = load(backend="torch").denoiser
    assert isinstance(plain, NativeDenoiser)
    assert "forward" not in vars(plain.model.base_model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "kernels"}, r"leave backend='kernels' or compile out"),
        ({"weights": "int8"}, r"leave weights='int8' or compile out"),
        ({"device": "auto", "device_map": "auto"}, r"leave device_map='auto' or compile out"),
        ({"compile": "yes"}, r"compile='yes': give True or False"),
    ],
)
def test_refused_with_the_remedy(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load(**{"compile": True, **options})


def test_refused_by_the_default_model() -> None:
    with pytest.raises(OptionError, match=r"compile=True is of no use to dllm, which has kernels; leave it out"):
        load_model("dllm", compile=True)


def test_refused_where_tokens_would_differ() -> None:
    with pytest.raises(OptionError, match=r"other tokens with DiffusionGemma.*; leave compile out"):
        compiling.wants_compiled(
            LoadOptions(compile=True, device="cpu"), torch.device("cpu"), DiffusionGemmaForBlockDiffusion
        )


def test_refused_without_a_compiler() -> None:
    """Before weights are read, with what was looked for."""
    from torch._inductor import config

    said = r"\(no-such-compiler\); install g\+\+, name one in CXX, or leave compile out"
    # By its own means: what is taken back by others leaves no option behind.
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(OptionError, match=said):
        load(compile=True)
