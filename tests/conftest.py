"""Fixtures: a tiny random tri-mode model in the hub's format, and the default model when weights are there."""

import atexit
import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Before torch is loaded, and for child processes too: threads that spin while they wait for one
# another make passes hundreds of times slower as soon as anything else runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A server of whoever runs the tests is not what they are about, nor what was measured for them.
os.environ.pop("DLLM_SERVER", None)
os.environ["DLLM_ROUTES"] = str(Path(tempfile.gettempdir()) / f"dllm-routes-{os.getpid()}.json")

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dllm_plugins.default_model.base_model import is_ready
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.drafting import watched
from dllm_plugins.models import Model
from dllm_plugins.models import load_model

atexit.register(Path(os.environ["DLLM_ROUTES"]).unlink, missing_ok=True)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 259,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def _base_tensors(generator: torch.Generator) -> dict[str, torch.Tensor]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    tensors = {"model.embed_tokens.weight": normal(259, 64) * 2, "model.norm.weight": torch.ones(64)}
    shapes = {
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (96, 64),
        "mlp.up_proj": (96, 64),
        "mlp.down_proj": (64, 96),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        tensors |= {f"{prefix}{name}.weight": normal(*shape) for name, shape in shapes.items()}
        tensors[f"{prefix}input_layernorm.weight"] = torch.ones(64)
        tensors[f"{prefix}post_attention_layernorm.weight"] = torch.ones(64)
    return tensors


def _denoiser_tensors(generator: torch.Generator) -> dict[str, torch.Tensor]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    sizes = {"qkv": (64, 128), "out": (64, 64), "gate_up": (64, 192), "down": (96, 64)}
    tensors = {"mask_embedding": normal(64), "chain.down": normal(24, 192), "chain.up": normal(64, 24)}
    for layer in range(2):
        for name, (inner, outer) in sizes.items():
            tensors[f"layers.{layer}.{name}.down"] = normal(4, inner)
            tensors[f"layers.{layer}.{name}.up"] = normal(outer, 4)
    return tensors


def make_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<unk>", "<s>", "</s>", *alphabet]
    backend = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


def make_tri_mode(folder: Path) -> Path:
    """A base model of two layers, its tokenizer, and beside it `denoiser.safetensors`; all weights random."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    save_file(_base_tensors(generator), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    make_tokenizer().save_pretrained(folder)
    save_file(_denoiser_tensors(generator), folder.parent / "denoiser.safetensors", metadata={"format": FORMAT})
    return folder


def pytest_collection_finish() -> None:
    """What the imports made lives to the end: the collector need not look at half a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _costs() -> Iterator[None]:
    """Passes cost the same on every machine that runs tests, so that layouts of drafts, chosen by it, are alike."""
    costs = Costs.of_clean({1: 10.0, 4: 11.0, 16: 14.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched, "costs_of", lambda denoiser: None if denoiser.form() is None else costs)
        yield


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run with one and with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See :func:`make_tri_mode`."""
    return make_tri_mode(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def load_tiny(tiny_folder: Path) -> Callable[[str], Model]:
    """Load the tiny model in a dtype."""

    def load(dtype: str = "float32") -> Model:
        denoiser = tiny_folder.parent / "denoiser.safetensors"
        return load_model("dllm", base=tiny_folder, denoiser=denoiser, dtype=dtype, device="cpu")

    return load


@pytest.fixture(scope="session")
def tiny(load_tiny: Callable[[str], Model]) -> Model:
    """The tiny model in float32."""
    return load_tiny("float32")


@pytest.fixture(scope="session")
def _llm_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The empty log of `llm`, whose tables are made once: its thirty migrations take seconds."""
    from llm.migrations import migrate
    from sqlite_utils import Database

    path = tmp_path_factory.mktemp("llm") / "logs.db"
    database = Database(path)
    migrate(database)  # type: ignore[no-untyped-call]
    database.close()
    return path


@pytest.fixture
def llm_folder(_llm_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user of `llm` who has asked nothing so far."""
    folder = tmp_path / "llm"
    folder.mkdir()
    shutil.copy(_llm_log, folder)
    monkeypatch.setenv("LLM_USER_PATH", str(folder))
    return folder


@pytest.fixture(scope="session")
def load_default() -> Callable[[str], Model]:
    """Load the default model in a dtype, once each. `make setup` fetches its base weights."""
    assert is_ready(), "the base model is not set up; run `make setup`"

    @cache
    def load(dtype: str) -> Model:
        return load_model("dllm", dtype=dtype, device="cpu")

    return load


@pytest.fixture(scope="session")
def default_model(load_default: Callable[[str], Model]) -> Model:
    """The default model in bfloat16."""
    return load_default("bfloat16")
