"""Adapters by PEFT: trained, saved, loaded by every host, and merged back into the original format."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.default_model.plain import load_plain
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.llama_cpp.convert import convert_base
from dllm_plugins.load_options import LoadOptions
from dllm_transformers import DiffusionModelForCausalLM
from langchain_dllm.profile import profile_of
from llm_dllm.checkpoints import entry_of

from ..gguf.checkpoints import make
from .checkpoints import NEEDED
from .checkpoints import copy_of
from .test_losses import KNOWN

peft = pytest.importorskip("peft", reason="needs the extra train")
pytestmark = [
    # PEFT asks by transformers' old name.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]
IDS = torch.randint(6, 30, (2, 8), generator=torch.Generator().manual_seed(1))
Folder = Callable[[str], Path]
#: An adapter's folder, and that of the merged model.
WAYS = ("adapter", "whole")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Folder:
    """The folder of a case, made once."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = copy_of(name, tmp_path_factory.mktemp("bases") / name, tiny_folder)
        return made[name]

    return find


def options(name: str) -> dict[str, Any]:
    return {**NEEDED.get(name, {}), **(KNOWN[name][1] if name in KNOWN else {})}


def wrapped(folder: Path, name: str, dtype: str | None = None, **more: Any) -> Any:
    """A model in PEFT's wrapper, with an adapter that changes something from the beginning."""
    model = DiffusionModelForCausalLM.from_pretrained(folder, dtype=dtype, **options(name))
    said = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False, **more}
    torch.manual_seed(2)
    return peft.get_peft_model(model, peft.LoraConfig(**said))


def merged(adapter: Path, name: str) -> dict[str, Tensor]:
    """The weights that every host but transformers reads."""
    checkpoint = open_checkpoint(adapter, options(name).get("family"), plugins.families())
    found: dict[str, Tensor] = load_checkpoint(checkpoint).state_dict()
    return found


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", KNOWN)
def test_every_family_learns_in_an_adapter(name: str, folder: Folder, tmp_path: Path) -> None:
    """The loss falls, the adapter is read back by transformers and PEFT, and merging it gives the same everywhere."""
    model = wrapped(folder(name), name, init_lora_weights=True)
    before = [weight.clone() for weight in model.parameters() if not weight.requires_grad]
    steps = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=2e-2)
    losses = []
    for _ in range(12):
        loss = model(input_ids=IDS, labels=IDS, generator=torch.Generator().manual_seed(3)).loss
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    for first, second in zip(
        before, (weight for weight in model.parameters() if not weight.requires_grad), strict=True
    ):
        assert torch.equal(first, second)
    model.eval()
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        model.save_pretrained(tmp_path / "adapter")
        again = DiffusionModelForCausalLM.from_pretrained(tmp_path / "adapter", **options(name))
        assert torch.equal(again(IDS).logits, expected)
        base = DiffusionModelForCausalLM.from_pretrained(folder(name), **options(name))
        assert torch.equal(peft.PeftModel.from_pretrained(base, tmp_path / "adapter")(input_ids=IDS).logits, expected)
        whole = model.merge_and_unload()
        whole.save_pretrained(tmp_path / "whole")
        assert equal(whole.native.state_dict(), merged(tmp_path / "adapter", name))
        assert equal(whole.native.state_dict(), merged(tmp_path / "whole", name))
        torch.testing.assert_close(whole(IDS).logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "more",
    [
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 3}},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all", "use_rslora": True},
    ],
    ids=str,
)
def test_kinds_of_adapters(more: dict[str, Any], folder: Folder, tmp_path: Path) -> None:
    """In bfloat16 they are merged to the bit as PEFT's merge_and_unload does it."""
    base = DiffusionModelForCausalLM.from_pretrained(folder("dream"), dtype="bfloat16")
    base.save_pretrained(tmp_path / "base")
    model = wrapped(tmp_path / "base", "dream", **more)
    model.save_pretrained(tmp_path / "adapter")
    found = merged(tmp_path / "adapter", "dream")
    assert not equal(found, base.native.state_dict())
    assert equal(found, model.merge_and_unload().native.state_dict())


def test_answers_of_an_adapter(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Auto class adds it, switched off it is gone, and load_model answers as the merged folder does."""
    # transformers 5.24 asks for 0.22, which was not to be had when this was written, to save what it has loaded.
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.21.0")
    model = wrapped(folder("llada_dense"), "llada_dense")
    model.save_pretrained(tmp_path / "adapter")
    said: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    prompt = IDS[:1, :4]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(folder("llada_dense")).generate(prompt, **said)
    answer = loaded.generate(prompt, **said)
    assert torch.equal(answer, model.generate(input_ids=prompt, **said))
    assert not torch.equal(answer, plain)
    loaded.disable_adapters()
    assert torch.equal(loaded.generate(prompt, **said), plain)
    loaded.enable_adapters()
    assert torch.equal(loaded.generate(prompt, **said), answer)
    loaded.save_pretrained(tmp_path / "again")
    assert equal(*(load_file(tmp_path / place / "adapter_model.safetensors") for place in ("adapter", "again")))
    model.merge_and_unload().save_pretrained(tmp_path / "whole")
    request = Request(prompt[0].tolist(), SamplingConfig(max_new_tokens=8))
    found = [
        load_model(str(tmp_path / place), backend="torch").engine().generate([request])[0].tokens
        for place in ("adapter", "whole")
    ]
    assert found[0] == found[1]


def test_hosts_take_adapters(folder: Folder, tmp_path: Path) -> None:
    """`llm dllm add` and LangChain say of one what they say of its base."""
    base, adapter = str(folder("dream")), str(tmp_path / "adapter")
    wrapped(folder("dream"), "dream").save_pretrained(adapter)
    found = entry_of(adapter, LoadOptions())
    assert found.folder == adapter
    assert found.facts == entry_of(base, LoadOptions()).facts
    assert profile_of(adapter, None)["max_input_tokens"] == profile_of(base, None)["max_input_tokens"]


def tensors(file: Path) -> dict[str, bytes]:
    """What a GGUF file holds."""
    return {item.name: item.data.tobytes() for item in GGUFReader(file).tensors}


def test_gguf_files_of_adapters(tmp_path: Path) -> None:
    """One holds the weights of the merged folder, byte for byte."""
    model = wrapped(make(tmp_path / "base", "dream"), "dream")
    model.save_pretrained(tmp_path / "first" / "tuned")
    model.merge_and_unload().save_pretrained(tmp_path / "second" / "tuned")
    files = [convert(tmp_path / place / "tuned", tmp_path / f"{place}.gguf", "F32") for place in ("first", "second")]
    assert tensors(files[0]) == tensors(files[1])


def test_adapters_of_original_code(folder: Folder, tmp_path: Path) -> None:
    """Those that go by the checkpoint's own names are merged; transformers, which would leave them out, is refused."""
    model = wrapped(folder("llada_dense"), "llada_dense", target_modules=["q_proj", "down_proj"])
    model.save_pretrained(tmp_path / "adapter")
    expected = merged(tmp_path / "adapter", "llada_dense")
    place = tmp_path / "adapter" / "adapter_model.safetensors"
    renamed = {
        name.replace("native.model.layers", "model.transformer.blocks")
        .replace("self_attn.", "")
        .replace("mlp.down_proj", "ff_out"): tensor
        for name, tensor in load_file(place).items()
    }
    save_file(renamed, place)
    change(tmp_path / "adapter", target_modules=["q_proj", "ff_out"])
    assert equal(merged(tmp_path / "adapter", "llada_dense"), expected)
    change(tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    with pytest.raises(CheckpointError, match=r"load_model\('ADAPTER'\)"):
        DiffusionModelForCausalLM.from_pretrained(tmp_path / "adapter")


def change(adapter: Path, **values: Any) -> None:
    """Set keys of an adapter's config."""
    place = adapter / "adapter_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **values}))


def test_adapters_that_cannot_be_merged(folder: Folder, tmp_path: Path) -> None:
    """Each is refused by what is wrong with it, and nothing is loaded in part."""
    adapter = tmp_path / "adapter"
    wrapped(folder("dream"), "dream", target_modules=["q_proj"]).save_pretrained(adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    first, *others = weights
    for stored, said in (
        ({name: weights[name] for name in others}, "lacks"),
        ({**weights, "base_model.model.native.nowhere.lora_A.weight": torch.ones(1)}, "has no place for"),
        ({**weights, first: weights[first] * torch.nan}, "numbers that are none"),
        ({**weights, first: weights[first][:1].clone()}, "size mismatch"),
    ):
        save_file(stored, adapter / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=said):
            merged(adapter, "dream")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pickles are never read"):
        merged(adapter, "dream")
    change(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(CheckpointError, match="an adapter itself"):
        open_checkpoint(adapter)
    change(adapter, base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"base_model_name_or_path='.*gone'"):
        open_checkpoint(adapter)
    change(adapter, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="write there which checkpoint"):
        load_model(str(adapter))
    with pytest.raises(OptionError, match=r"adapter_name='mine'.*is no adapter"):
        DiffusionModelForCausalLM.from_pretrained(folder("dream"), adapter_name="mine")


@pytest.mark.parametrize("target", ["all-linear", r".*decoder.*q_proj", r".*encoder\.language_model.*q_proj"])
def test_adapters_of_shared_weights(
    target: str, folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DiffusionGemma's encoder and decoder share theirs, and each is merged with its own adapter, or with none."""
    model = wrapped(folder("diffusion_gemma"), "diffusion_gemma", target_modules=target)
    model.save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    base, found = merged(folder("diffusion_gemma"), "diffusion_gemma"), merged(tmp_path / "adapter", "diffusion_gemma")
    changed = 0
    for name in (name for name in base if name.endswith("q_proj.weight")):
        place, expected = f"base_model.model.native.{name.removesuffix('.weight')}", base[name]
        if f"{place}.lora_A.weight" in stored:
            # Scaled by lora_alpha over r: 8 / 2.
            expected = expected + 4 * stored[f"{place}.lora_B.weight"] @ stored[f"{place}.lora_A.weight"]
            changed += 1
        torch.testing.assert_close(found[name], expected)
    assert changed == len({name for name in stored if "q_proj.lora_A" in name}) > 0
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    given = {"input_ids": IDS[:1, :4], "decoder_input_ids": IDS[1:]}
    with torch.no_grad():
        expected = model.base_model.model.native(**given).logits
        one = load_checkpoint(open_checkpoint(tmp_path / "adapter"))(**given).logits
    torch.testing.assert_close(one, expected, atol=1e-3, rtol=1e-3)
    assert "tie" not in caplog.text


def tuned(base: Path, target: Path, **more: Any) -> Any:
    """A model whose rows see what is left of them, in PEFT's wrapper, with an adapter that is saved."""
    torch.manual_seed(2)
    config = peft.LoraConfig(**{"r": 2, "target_modules": "all-linear", "init_lora_weights": False, **more})
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.save_pretrained(target)
    return model


def test_a_base_of_the_default_model_with_an_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    """It is merged by whoever reads the base, and decoded speculatively as its own text; llama.cpp's too."""
    model = tuned(tiny_folder, tmp_path / "adapter")
    said: dict[str, Any] = {"base": tmp_path / "adapter", "denoiser": tiny_folder.parent / "denoiser.safetensors"}
    loaded = load_model("dllm", **said, dtype="float32", device="cpu")
    prompt = IDS[0].tolist()
    # The wrapped class is transformers' own.
    whole = model.merge_and_unload()
    expected = whole.generate(IDS[:1], max_new_tokens=12, do_sample=False, eos_token_id=None)
    wanted = tuple(expected[0, len(prompt) :].tolist())
    requests = [Request(prompt, SamplingConfig(max_new_tokens=12, mode=mode)) for mode in ("ar", "speculative")]
    for finish in loaded.engine().generate(requests):
        assert finish.tokens == wanted[: len(finish.tokens)]
        assert finish.tokens
    whole.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "whole")
    first, second = (tensors(convert_base(tmp_path / name, tmp_path / name / "f32", "F32")) for name in WAYS)
    assert first == second
    assert first != tensors(convert_base(tiny_folder, tmp_path / "f32", "F32"))
    assert profile_of("dllm", str(tmp_path / "adapter")) == profile_of("dllm", str(tiny_folder))
    target = load_plain(str(tmp_path / "adapter"), LoadOptions(dtype="float32", device="cpu"))
    (finish,) = target.engine().generate(requests[:1])
    assert finish.tokens == wanted[: len(finish.tokens)]


def test_adapters_of_tri_mode_checkpoints(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Auto class adds them, and generate() decodes with those that are on, as after merging."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.21.0")
    model = tuned(checkpoint, tmp_path / "adapter")
    said: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    plain = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).generate(IDS[:1], **said)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    answer = loaded.generate(IDS[:1], **said)
    assert not torch.equal(answer, plain)
    assert torch.equal(model.generate(input_ids=IDS[:1], **said), answer)
    loaded.disable_adapters()
    assert torch.equal(loaded.generate(IDS[:1], **said), plain)
    loaded.enable_adapters()
    loaded.save_pretrained(tmp_path / "again")
    assert equal(*(load_file(tmp_path / place / "adapter_model.safetensors") for place in ("adapter", "again")))
    model.merge_and_unload().save_pretrained(tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert torch.equal(whole.generate(IDS[:1], **said), answer)
    tuned(checkpoint, tmp_path / "normed", modules_to_save=["model.norm"])
    normed = AutoModelForCausalLM.from_pretrained(tmp_path / "normed", dtype=torch.float32)
    with pytest.raises(CheckpointError, match="merge_and_unload"):
        normed.generate(IDS[:1], **said)


def test_an_adapter_s_own_tokenizer(folder: Folder, tmp_path: Path) -> None:
    """It comes before that of the base."""
    wrapped(folder("dream"), "dream").save_pretrained(tmp_path / "adapter")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder("dream"))
    assert load_model(str(tmp_path / "adapter"), device="cpu").tokenizer.chat_template == tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "adapter")
    found = load_model(str(tmp_path / "adapter"), device="cpu")
    assert found.tokenizer.decode(found.encode_chat([{"role": "user", "content": "hi"}])) == "hi"


def test_the_revision_of_the_base(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host fetches the one that the adapter names, whatever the adapter's own is."""
    asked: list[tuple[str, str | None]] = []

    def fetch(name: str, revision: str | None = None, **_options: Any) -> str:
        asked.append((name, revision))
        return str(tmp_path / "adapter" if name == "mine/adapter" else folder("dream"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    wrapped(folder("dream"), "dream").save_pretrained(tmp_path / "adapter")
    change(tmp_path / "adapter", base_model_name_or_path="some/dream", revision="v2")
    load_model(str(tmp_path / "adapter"), device="cpu")
    assert asked == [("some/dream", "v2")]
    asked.clear()
    monkeypatch.setattr(DiffusionModelForCausalLM, "load_adapter", lambda *_, **__: None)
    DiffusionModelForCausalLM.from_pretrained("mine/adapter", revision="tuned")
    assert asked == [("mine/adapter", "tuned"), ("some/dream", "v2")]
    asked.clear()
    # As the Auto classes call it.
    given = {"adapter_kwargs": {"_adapter_model_path": "mine/adapter", "revision": "tuned"}, "revision": "main"}
    config = AutoConfig.from_pretrained(folder("dream"))
    DiffusionModelForCausalLM.from_pretrained("some/dream", config=config, **given)
    assert asked == [("mine/adapter", "tuned"), ("some/dream", "v2")]
    change(tmp_path / "adapter", revision=2)
    with pytest.raises(CheckpointError, match="revision=2"):
        load_model(str(tmp_path / "adapter"))
