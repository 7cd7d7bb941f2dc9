"""`quantization_config` of torchao and bitsandbytes: layers as the libraries quantise them, decoded, trained beside."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft import get_peft_model
from transformers import AutoModelForCausalLM
from transformers import BitsAndBytesConfig
from transformers import HqqConfig
from transformers import TorchAoConfig
from transformers import Trainer
from transformers import TrainingArguments

from dllm_plugins.errors import OptionError

from ..gguf.checkpoints import make

bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra quantised brings it")
quantization: Any = import_module("torchao.quantization") if find_spec("torchao") else None
#: transformers imports it with every model where it is installed, so that only the extra brings it.
with_torchao = pytest.mark.skipif(
    quantization is None, reason="torchao is not installed: pip install -e '.[quantised]'"
)
TORCHAO = pytest.param("torchao Int8WeightOnlyConfig", marks=with_torchao)
IDS = torch.tensor([[*range(40, 57)]])
TEXTS = torch.randint(40, 60, (8, 16), generator=torch.Generator().manual_seed(1))
WAYS: dict[str, Any] = {
    "torchao Int8WeightOnlyConfig": lambda: TorchAoConfig(quantization.Int8WeightOnlyConfig()),
    "bitsandbytes nf4": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes fp4": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True),
    "bitsandbytes int8": lambda: BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense checkpoint in bfloat16."""
    return make(tmp_path_factory.mktemp("quantising") / "sdar", "sdar", torch.bfloat16)


def loaded(folder: Path, way: str, **options: Any) -> Any:
    """Quantised, by the Auto class."""
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=WAYS[way](), **options)


def stored(layer: Any) -> torch.Tensor:
    """The whole numbers of a quantised layer; tensors of torchao cannot be compared."""
    return getattr(layer.weight, "qdata", layer.weight.data)  # type: ignore[no-any-return]


def weight_of(layer: Any) -> torch.Tensor:
    """What a quantised layer multiplies, by its own library."""
    weight = layer.weight
    if hasattr(weight, "quant_state") and weight.quant_state is not None:
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)  # type: ignore[no-any-return]
    if hasattr(weight, "SCB"):
        return weight.data.float() * weight.SCB[:, None] / 127  # type: ignore[no-any-return]
    return weight.dequantize()  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", [TORCHAO, *(way for way in WAYS if "torchao" not in way)])
def test_logits_are_those_of_the_dequantised_weights(folder: Path, way: str) -> None:
    """Every linear layer but the head is quantised, and the rest is what it was; spec and statistics say so."""
    model: Any = loaded(folder, way)
    plain: Any = AutoModelForCausalLM.from_pretrained(folder)
    before = plain(IDS).logits
    count = 0
    for name, layer in plain.native.named_modules():
        if type(layer) is torch.nn.Linear and "lm_head" not in name:
            layer.weight.data = weight_of(model.native.get_submodule(name)).to(layer.weight.dtype)
            count += 1
    assert count == 14
    found, expected = model(IDS).logits, plain(IDS).logits
    assert not torch.equal(found, before)
    # bfloat16's products, and activations in eight bits where the library rounds them.
    assert (found - expected).abs().max() < 0.06 * expected.abs().max()
    assert torch.equal(model.native.lm_head.weight, plain.native.lm_head.weight)
    spec = model.engine_model().denoiser.spec
    assert (spec.weights, spec.numerics) == (way, "approximate")
    assert spec.name.endswith(f" with {way} weights")


@pytest.mark.parametrize("way", [TORCHAO, *(way for way in WAYS if "torchao" not in way)])
def test_it_decodes_the_same_twice(folder: Path, way: str) -> None:
    """And the statistics say what was multiplied."""
    model = loaded(folder, way)
    first, second = (model.generate(IDS, max_new_tokens=8, return_dict_in_generate=True) for _ in range(2))
    assert torch.equal(first.sequences, second.sequences)
    assert first.usage[0]["weights"] == way


@pytest.mark.parametrize("way", [TORCHAO, "bitsandbytes nf4", "bitsandbytes fp4"])
def test_in_float32_nothing_but_the_weights_is_rounded(folder: Path, way: str) -> None:
    """The products are those of the dequantised weights, to float32's own rounding."""
    model, plain = loaded(folder, way, dtype=torch.float32), loaded(folder, way, dtype=torch.float32)
    for name, layer in model.native.named_modules():
        if hasattr(layer, "in_features") and "lm_head" not in name:
            whole = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            whole.weight.data = weight_of(layer).float()
            plain.native.set_submodule(name, whole)
    found, expected = model(IDS).logits, plain(IDS).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


# PEFT asks every quantised model for it.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("way", ["bitsandbytes nf4", "bitsandbytes int8", TORCHAO])
def test_an_adapter_learns_beside_quantised_weights(folder: Path, way: str, tmp_path: Path) -> None:
    """QLoRA: the loss falls, no base weight moves, and the adapter goes with the base as it was, too."""
    base = loaded(folder, way)
    model: Any = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    weight = stored(base.native.model.layers[0].mlp.up_proj).clone()
    steps = torch.optim.Adam([part for part in model.parameters() if part.requires_grad], lr=2e-2)
    losses = []
    for _ in range(25):
        steps.zero_grad()
        loss = model(input_ids=TEXTS, labels=TEXTS, generator=torch.Generator().manual_seed(3)).loss
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(stored(base.native.model.layers[0].mlp.up_proj), weight)
    model.save_pretrained(tmp_path / "adapter")
    for again in (AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"), loaded(tmp_path / "adapter", way)):
        with torch.no_grad():
            found = again(TEXTS, labels=TEXTS, generator=torch.Generator().manual_seed(3)).loss
        assert float(found) < 0.85 * losses[0]


# PEFT says that bitsandbytes rounds what is merged.
@pytest.mark.filterwarnings("ignore:Merge lora module", "ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("way", ["bitsandbytes int8", TORCHAO])
def test_an_adapter_is_merged_into_eight_bits(folder: Path, way: str) -> None:
    """The layers are quantised again, and do what the adapter did beside them, up to that rounding."""
    base = loaded(folder, way, dtype=torch.float32)
    bare = base(IDS).logits
    torch.manual_seed(2)
    tuned: Any = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    expected = tuned.eval()(IDS).logits
    merged = tuned.merge_and_unload()
    assert type(merged) is type(base)
    assert (merged(IDS).logits - expected).norm() < 0.1 * (bare - expected).norm()


@pytest.mark.parametrize("way", [TORCHAO, *(way for way in WAYS if "torchao" not in way)])
def test_the_trainer_wants_an_adapter(folder: Path, way: str, tmp_path: Path) -> None:
    """As for every quantised model: all but the linear layers would be trained otherwise, without a word."""
    with pytest.raises(ValueError, match="purely quantized"):
        Trainer(loaded(folder, way), TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))


@pytest.mark.parametrize("way", [TORCHAO, *(way for way in WAYS if "torchao" not in way)])
def test_casts_are_refused(folder: Path, way: str) -> None:
    """By transformers or here; what changes nothing is done, and the model computes what it did."""
    model = loaded(folder, way)
    before = model(IDS).logits
    for cast in (model.half, model.float, model.double, lambda: model.to(torch.float16)):
        with pytest.raises((OptionError, ValueError), match=r"load the model again|not supported for quantized|dtype"):
            cast()
    assert torch.equal(model.to("cpu")(IDS).logits, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantization_config": {"load_in_8bit": True}}, "give a TorchAoConfig or a BitsAndBytesConfig, or weights="),
        ({"quantization_config": HqqConfig}, "give a TorchAoConfig or a BitsAndBytesConfig, or weights="),
        (
            {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True)},
            "llm_int8_enable_fp32_cpu_offload=True has no effect here",
        ),
        (
            {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": "cpu"},
            "quantization_config and device_map='cpu' exclude one another",
        ),
        (
            {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "weights": "Q4_0"},
            "quantization_config and weights='Q4_0' exclude one another",
        ),
    ],
)
def test_what_is_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    """Before a weight is read, with what works."""
    with pytest.raises(OptionError, match=words):
        AutoModelForCausalLM.from_pretrained(folder, **options)


@with_torchao
def test_layers_that_a_library_passes_over(folder: Path) -> None:
    """Groups of 128 do not divide rows of 64, which torchao leaves as they are without a word."""
    config = TorchAoConfig(quantization.Int4WeightOnlyConfig(group_size=128))
    with pytest.raises(OptionError, match="quantised 0 of 14 linear layers"):
        AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)


def test_modules_that_stay(folder: Path) -> None:
    """Those that the config names."""
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["down_proj"])
    model: Any = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
    layers = model.native.model.layers
    assert type(layers[0].mlp.down_proj) is torch.nn.Linear
    assert type(layers[0].mlp.up_proj) is bitsandbytes.nn.Linear8bitLt


@pytest.mark.parametrize(
    ("kind", "options", "stay"),
    [
        ("llada_moe", {}, "experts bfloat16, gate bfloat16"),
        ("sdar_moe", {}, "experts bfloat16, gate bfloat16"),
        # Its router is kept in float32.
        ("llada2", {"preset": "llada2.0"}, "experts bfloat16, gate float32"),
    ],
)
@pytest.mark.parametrize("way", [TORCHAO, "bitsandbytes nf4"])
def test_what_stays_is_said(kind: str, options: dict[str, str], stay: str, way: str, tmp_path: Path) -> None:
    """Experts and routers are no linear layers; spec and statistics name them, and they hold what they held."""
    place = make(tmp_path / kind, kind, torch.bfloat16)
    model: Any = loaded(place, way, **options)
    plain: Any = AutoModelForCausalLM.from_pretrained(place, **options)
    before = dict(plain.native.named_parameters())
    same = [name for name, weight in model.native.named_parameters() if weight.ndim == 3]
    assert same
    assert all(torch.equal(model.native.get_parameter(name), before[name]) for name in same)
    spec = model.engine_model().denoiser.spec
    assert (spec.weights, spec.numerics) == (f"{way} ({stay})", "approximate")
    found = model.generate(IDS, max_new_tokens=4, return_dict_in_generate=True)
    assert found.usage[0]["weights"] == spec.weights


@pytest.mark.parametrize(
    ("skipped", "stay"),
    [
        (["down_proj"], "down_proj bfloat16"),
        (["layers.0.mlp.up_proj", "k_proj"], "k_proj bfloat16, some up_proj bfloat16"),
    ],
)
def test_what_the_config_names_is_said(folder: Path, skipped: list[str], stay: str) -> None:
    """Also where a module of the same name elsewhere was quantised."""
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
    assert model.engine_model().denoiser.spec.weights == f"bitsandbytes int8 ({stay})"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda model, place: model.save_pretrained(place), r"save_pretrained\(\) needs the weights"),
        (lambda model, place: model.resize_token_embeddings(400), r"resize_token_embeddings\(\) needs"),
        (lambda model, place: model.load_state_dict({}), r"load_state_dict\(\) needs"),
    ],
)
def test_what_quantised_weights_cannot_do(folder: Path, act: Any, words: str, tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(OptionError, match=f"{words}.*by quantization_config; load the model again"):
        act(loaded(folder, "bitsandbytes int8"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
