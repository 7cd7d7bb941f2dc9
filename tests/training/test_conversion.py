"""Autoregressive models become diffusion models that every host loads; runs go on to the bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.training.__main__ import main
from dllm_plugins.training.conversion.bounds import bound
from dllm_plugins.training.conversion.bounds import likelihood
from dllm_plugins.training.conversion.run import Conversion
from dllm_plugins.training.conversion.text import rows_of
from dllm_plugins.training.conversion.text import unfilled
from dllm_plugins.training.conversion.train import ConversionRecipe
from dllm_plugins.training.conversion.train import finished
from dllm_plugins.training.conversion.train import train
from dllm_transformers import DiffusionModelForCausalLM
from langchain_dllm import ChatDLLM

from ..default_model.bases import make_base

TINY = ConversionRecipe(
    "bd3lm",
    4,
    steps=4,
    batch=2,
    length=64,
    learning_rate=1e-3,
    warm_up=1,
    dtype="float32",
    watched=2,
    look_every=2,
    save_every=2,
)
FORMATS = [("llama", "bd3lm"), ("qwen2", "fast-dllm-v2"), ("qwen3", "sdar"), ("qwen2", "mdlm")]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chats whose answers follow from their questions."""
    path = tmp_path_factory.mktemp("text") / "chats.jsonl"
    chats = [
        [{"role": "user", "content": letter}, {"role": "assistant", "content": chr(ord(letter) + 1) * 5}]
        for letter in "abcdefghijkl" * 3
    ]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return path


def convert(*given: object) -> Any:
    asked = [str(item) for item in ("convert", *given, "--dtype", "float32")]
    return CliRunner().invoke(main, asked, catch_exceptions=False)


def begun(folder: Path, base: Path, recipe: ConversionRecipe, text: Path) -> tuple[Conversion, Any, Any, Any]:
    """A run before its first step: itself, the model, text, held-out text."""
    run = Conversion(str(base), folder, recipe)
    model: Any = DiffusionModelForCausalLM.from_pretrained(run.start, dtype="float32")
    return run, model, *run.rows(model, [text], [])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "to"), FORMATS)
def test_from_a_folder_to_a_diffusion_model(kind: str, to: str, tmp_path: Path, text: Path) -> None:
    """Every host loads it, lossless modes are so, and the card says what was measured."""
    base, folder = make_base(tmp_path / "base", kind), tmp_path / "run"
    if kind == "llama":
        AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16", trust_remote_code=False).save_pretrained(base)
    small = ("--steps", 2, "--batch", 2, "--length", 64, "--block", 4, "--prompts", 2, "--tokens", 8)
    done = convert("--base", base, "--to", to, "--folder", folder, "--text", text, *small)
    assert done.exit_code == 0, done.output
    scores = json.loads((folder / "scores.json").read_text())
    # Of shifted block models no mode is promised to say what another one does.
    assert bool(scores["checks"]) == (to != "fast-dllm-v2")
    assert all(line["equal"] == line["of"] for line in scores["checks"])
    card = (folder / "model" / "README.md").read_text()
    assert f"{scores['bound']:.3f} ± {scores['error']:.3f}" in card
    assert f"({to})" in card
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")

    model = str(folder / "model")
    auto = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    answer = ChatDLLM(model=model, max_tokens=8, dtype="float32").invoke("a").content
    loaded = load_model(model, dtype="float32")
    asked = loaded.encode_chat([{"role": "user", "content": "a"}])
    tokens = auto.generate(torch.tensor([asked]), max_new_tokens=8, do_sample=False)[0, len(asked) :]
    assert loaded.tokenizer.decode(tokens, skip_special_tokens=True) == answer
    assert loaded.tokenizer.mask_token_id == loaded.denoiser.spec.mask_id == 259
    assert loaded.denoiser.spec.block_length == 4


def test_conversion_changes_no_weight(tmp_path: Path) -> None:
    """Before training the weights are the base's, with one more embedding: the mean of the others."""
    base = make_base(tmp_path / "base", "llama untied")
    Conversion(str(base), tmp_path / "run", TINY)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "run" / "start"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.equal(weight, after[name][: len(weight)])
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.allclose(after[name][-1], weight.mean(0), atol=1e-6)


def test_goes_on_to_the_bit(tmp_path: Path, text: Path) -> None:
    """A run that is broken off behind its second step ends with the weights of one that was not."""
    base = make_base(tmp_path / "base", "llama")

    def ended(name: str, breaks: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
        run, model, rows, held = begun(tmp_path / name, base, TINY, text)
        collator, calls = run._collator(model), []

        def collate(examples: Any) -> Any:
            calls.append(1)
            if breaks and len(calls) == 4:
                raise InterruptedError
            return collator(examples)

        state = train(model, collate, rows, held, run.folder / "trainer", TINY)
        return [line["eval_bound"] for line in state.log_history if "eval_bound" in line], model.state_dict()

    curve, whole = ended("whole", breaks=False)
    with pytest.raises(InterruptedError):
        ended("broken", breaks=True)
    again, resumed = ended("broken", breaks=False)
    assert again == curve
    assert len(set(curve)) == 3
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    done = finished(tmp_path / "broken" / "trainer", TINY.steps)
    assert done is not None
    assert done.name == "checkpoint-4"
    kept: Any = DiffusionModelForCausalLM.from_pretrained(done)
    assert all(torch.equal(whole[name], weight) for name, weight in kept.state_dict().items())
    assert ended("broken", breaks=False)[0] == curve
    assert finished(tmp_path / "broken" / "trainer", TINY.steps + 1) is None


def test_seeds_say_the_same(tmp_path: Path, text: Path) -> None:
    """What a tiny model learns does not hang on the order of texts and noise: the bound falls by half and more."""
    base, found = make_base(tmp_path / "base", "qwen3"), []
    for seed in (1, 2):
        recipe = replace(TINY, steps=60, seed=seed, batch=8, learning_rate=3e-3, look_every=60, save_every=60)
        run, model, rows, held = begun(tmp_path / str(seed), base, recipe, text)
        before = bound(model, held, 8).nats
        train(model, run._collator(model), rows, held, run.folder / "trainer", recipe)
        found.append((before, bound(model, held, 8).nats))
    assert found[0][0] == found[1][0]
    assert all(after < 0.5 * before for before, after in found)
    assert found[0][1] != found[1][1]


def test_the_bound_of_one_token_is_its_likelihood(tmp_path: Path, text: Path) -> None:
    """Whatever the noise: the mask has one place to be, and is weighted by how seldom it is there."""
    run, model, _, _ = begun(tmp_path / "run", make_base(tmp_path / "base", "llama"), replace(TINY, to="mdlm"), text)
    ids = list(range(20, 28))
    row = {"input_ids": ids, "labels": [*[-100] * 7, ids[-1]]}
    noisy = torch.tensor([[*ids[:-1], model.spec.mask_id]])
    with torch.no_grad():
        said = model(noisy).logits[0, -1]
    said[model.spec.mask_id] = -torch.inf
    exact = -float(said.log_softmax(-1)[ids[-1]])
    found = bound(model, [row], 600)
    assert abs(found.nats - exact) < 4 * found.error
    assert found.error < 0.2 * exact
    assert model.objective is None
    theirs: Any = AutoModelForCausalLM.from_pretrained(run.base, dtype=torch.float32)
    with torch.no_grad():
        next_one = theirs(torch.tensor([ids])).logits[0, -2].log_softmax(-1)[ids[-1]]
    assert likelihood(theirs, [row]) == pytest.approx(-float(next_one), rel=1e-5)


def test_ends_of_text(tmp_path: Path, text: Path) -> None:
    """Blocks are filled up behind an end of text only; what was cut off teaches no end."""
    run, model, _, _ = begun(tmp_path / "run", make_base(tmp_path / "base", "llama"), TINY, text)
    file, end = tmp_path / "own.jsonl", 2
    file.write_text(
        '{"p": [9, 9, 9], "r": [8, 7, 2]}\n{"p": [9, 9, 9], "r": [8, 7, 6]}\n{"p": [9, 9, 9, 9], "r": [8]}\n'
    )
    ended, cut = rows_of([file], run._collator(model), frozenset({end}), 4, canvas=False)
    assert ended == {"input_ids": [9, 9, 9, 8, 7, 2, 2, 2], "labels": [-100, -100, -100, 8, 7, 2, 2, 2]}
    assert unfilled(ended)["input_ids"] == [9, 9, 9, 8, 7, 2]
    assert cut == {"input_ids": [9, 9, 9, 8], "labels": [-100, -100, -100, 8]}
    only = rows_of([file], run._collator(model), frozenset({end}), 4, canvas=True)
    assert [row["input_ids"] for row in only] == [[9, 9, 9, 8, 7, 2]]
    for wrong, words in (
        ("[1]", "line 1 is no JSON object"),
        ("{", "holds no JSON lines"),
        ('{"a": 1}', "line 1: an ex"),
    ):
        file.write_text(wrong)
        with pytest.raises(CheckpointError, match=words):
            rows_of([file], run._collator(model), frozenset({end}), 4, canvas=False)


def test_what_cannot_be_converted(tmp_path: Path, text: Path) -> None:
    """Each is refused by what is wrong with it, before anything is trained."""
    base = make_base(tmp_path / "base", "llama")
    with pytest.raises(OptionError, match=r"--to sdar takes a base of qwen3.*say --to bd3lm or mdlm"):
        Conversion(str(base), tmp_path / "one", replace(TINY, to="sdar"))
    Conversion(str(base), tmp_path / "two", TINY)
    with pytest.raises(CheckpointError, match="begun with steps=4; say so"):
        Conversion(str(base), tmp_path / "two", replace(TINY, steps=5))
    asked = ("--base", base, "--folder", tmp_path / "three", "--text", text)
    assert "--minutes has no effect with --to mdlm" in convert(*asked, "--to", "mdlm", "--minutes", 1).output
    assert "--steps has no effect with --to tri-mode" in convert(*asked, "--to", "tri-mode", "--steps", 1).output
    assert "there is no text" in convert("--base", base, "--to", "mdlm", "--folder", tmp_path / "four").output
    config = base / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match="model_type='gpt2'; what can be converted is llama, qwen2, qwen3"):
        Conversion(str(base), tmp_path / "five", TINY)
    with pytest.raises(DllmError, match=r"absent\.gguf"):
        Conversion(str(tmp_path / "absent.gguf"), tmp_path / "six", TINY)


@pytest.mark.slow
def test_to_tri_mode(tmp_path: Path) -> None:
    """Base and denoiser in one folder, which says what the base says."""
    base, text = make_base(tmp_path / "base", "qwen2", eos_token_id=250), tmp_path / "text"
    corpus = ["corpus", "--base", base, "--folder", text, "--tokens", 100, "--prompts", 6, "--longest", 32]
    CliRunner().invoke(main, [str(item) for item in [*corpus, "--dtype", "float32"]], catch_exceptions=False)
    small = ("--minutes", 0.003, "--batch", 2, "--prompts", 1, "--tokens", 4)
    done = convert("--base", base, "--to", "tri-mode", "--folder", tmp_path / "run", "--text", text, *small)
    assert done.exit_code == 0, done.output
    model = tmp_path / "run" / "model"
    loaded = load_model("dllm", base=model, denoiser=model / "denoiser" / "denoiser.safetensors", dtype="float32")
    assert "speculative" in loaded.denoiser.spec.modes
    assert "| speculative, draft_length 2 |" in (model / "README.md").read_text()
    assert AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False).config.model_type == "qwen2"
