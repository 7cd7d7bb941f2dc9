"""A tri-mode checkpoint: Auto classes, pipeline, round trips, `custom_generate/`."""

import json
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import PreTrainedTokenizerBase
from transformers import pipeline
from transformers.cli.transformers import app

from dllm_plugins import DllmError
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.whole import alone
from dllm_transformers import TriModeConfig
from dllm_transformers import TriModeForCausalLM
from dllm_transformers import export
from dllm_transformers import write_custom_generate

PROMPT = torch.tensor([[5, 9, 77, 120, 33]])
#: transformers types its overloads too narrowly for models of registered classes.
text_generation: Any = pipeline
GREEDY: dict[str, Any] = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
DIFFUSION: dict[str, Any] = {**GREEDY, "mode": "diffusion", "threshold": 0.02, "return_dict_in_generate": True}


@pytest.fixture
def tri(checkpoint: Path) -> Any:
    """The checkpoint as the Auto classes load it."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


def test_auto_classes_sample_by_diffusion(tri: Any, model: Any, strategy: partial[Any]) -> None:
    """With no further argument, by the denoiser that the checkpoint carries."""
    assert isinstance(tri, TriModeForCausalLM)
    assert isinstance(tri.config, TriModeConfig)
    for options in (GREEDY, DIFFUSION):
        ours = tri.generate(PROMPT, **options)
        expected = model.generate(PROMPT, custom_generate=strategy, **options)
        if options is DIFFUSION:
            assert ours.usage[0]["passes"] == expected.usage[0]["passes"]
            assert ours.usage[0]["mode"] == "diffusion"
            ours, expected = ours.sequences, expected.sequences
        assert ours.tolist() == expected.tolist()


def test_forward_is_the_base(tri: Any, model: Any) -> None:
    """The denoiser leaves clean rows alone."""
    assert torch.equal(tri(PROMPT).logits, model(PROMPT).logits)


def test_round_trip(tri: Any, tmp_path: Path) -> None:
    """Saved and loaded: the same tensors, the same answers, the generation config's options."""
    tri.generation_config.mode = "diffusion"
    tri.generation_config.threshold = 0.02
    tri.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert again.state_dict().keys() == tri.state_dict().keys()
    for name, tensor in tri.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    options: Any = again.generation_config
    assert options.mode == "diffusion"
    ours = again.generate(PROMPT, **GREEDY, return_dict_in_generate=True)
    assert ours.sequences.tolist() == tri.generate(PROMPT, **DIFFUSION).sequences.tolist()
    assert ours.usage[0]["mode"] == "diffusion"


def test_pipeline(tri: Any, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Text in, text out; its injected defaults (sampling at 0.7, 256 tokens) are honoured like any others."""
    generator = text_generation("text-generation", model=tri, tokenizer=tokenizer)
    sampled = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        sampled.append(generator("why?", max_new_tokens=12)[0]["generated_text"])
    assert sampled[0] == sampled[1] != sampled[2]
    greedy = generator("why?", max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
    ids = tokenizer("why?", return_tensors="pt")
    expected = tri.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert greedy == tokenizer.decode(expected, skip_special_tokens=True)
    texts = ["why?", "how come?", "when exactly?"]
    batched = generator(texts, max_new_tokens=12, do_sample=False, batch_size=3)
    assert [found[0]["generated_text"] for found in batched] == [
        generator(text, max_new_tokens=12, do_sample=False)[0]["generated_text"] for text in texts
    ]
    stop = next(letter for letter in greedy[1:] if letter.isascii())
    plain = text_generation("text-generation", model=model, tokenizer=tokenizer)
    stopping: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "stop_sequence": stop}
    cut = generator("why?", **stopping)[0]["generated_text"]
    assert cut == plain("why?", **stopping)[0]["generated_text"]
    assert cut.endswith(stop)


def test_pipeline_with_the_strategy(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase, tri: Any
) -> None:
    """A plain base model and `custom_generate=`, stop sequences and options included."""
    generator = text_generation("text-generation", model=model, tokenizer=tokenizer, custom_generate=strategy)
    other = text_generation("text-generation", model=tri, tokenizer=tokenizer)
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "mode": "diffusion", "threshold": 0.02}
    found = generator("why?", **options)[0]["generated_text"]
    assert found == other("why?", **options)[0]["generated_text"]
    stop = found[-4:-2]
    assert generator("why?", **options, stop_sequence=stop) == other("why?", **options, stop_sequence=stop)


def test_custom_generate_folder(model: Any, checkpoint: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """A repository carries the strategy; loading it is remote code, which the user allows."""
    expected = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).generate(PROMPT, **DIFFUSION)
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    write_custom_generate(tmp_path)
    ours = model.generate(PROMPT, custom_generate=str(tmp_path), trust_remote_code=True, denoiser=denoiser, **DIFFUSION)
    assert ours.sequences.tolist() == expected.sequences.tolist()
    loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=True)
    assert loaded.generate(PROMPT, **DIFFUSION).sequences.tolist() == expected.sequences.tolist()


@pytest.mark.slow
def test_importing_is_all_it_takes(checkpoint: Path) -> None:
    """A fresh process that only imports `dllm_transformers` loads the folder without remote code."""
    code = (
        "import sys, dllm_transformers\n"
        "from transformers import AutoModelForCausalLM\n"
        "print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__name__)"
    )
    command = [sys.executable, "-c", code, str(checkpoint)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["TriModeForCausalLM"]


@pytest.mark.parametrize(
    ("strategy", "trusted", "words"),
    [
        ("here", False, "trust_remote_code=True"),
        ("/nowhere", True, "'/nowhere' cannot be loaded.*give a repository"),
        (5, True, "neither a function"),
    ],
)
@pytest.mark.parametrize("name", ["checkpoint", "llada"])
def test_other_strategies(
    name: str, strategy: Any, trusted: bool, words: str, request: pytest.FixtureRequest, capsys: Any
) -> None:
    """One that cannot be loaded, or whose code nobody trusts, is refused and asked about nowhere; a function runs."""
    folder = request.getfixturevalue(name)
    found: Any = AutoModelForCausalLM.from_pretrained(folder)
    strategy = str(folder) if strategy == "here" else strategy
    with pytest.raises(OptionError, match=words):
        found.generate(PROMPT, custom_generate=strategy, trust_remote_code=trusted or None, **GREEDY)
    assert "Do you wish" not in capsys.readouterr().out
    assert found.generate(PROMPT, custom_generate=lambda *_args, **_kwargs: 3, max_new_tokens=4) == 3


def test_export_refuses(tiny_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A folder in use, an unknown dtype, weights that do not fit one another."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    with pytest.raises(DllmError, match="not an empty folder"):
        export(checkpoint, tiny_folder, denoiser)
    with pytest.raises(DllmError, match="float7"):
        export(tmp_path / "new", tiny_folder, denoiser, "float7")
    with pytest.raises(DllmError, match=r"fit|inputs|no tensor"):
        export(tmp_path / "new", tiny_folder)
    assert not (tmp_path / "new").exists()


def test_export_takes_the_place_of_one_that_was_killed(tiny_folder: Path, tmp_path: Path) -> None:
    """Half a checkpoint never has a config.json, and its left-overs are no files of the user's."""
    work = tmp_path / "new" / ".checkpoint.part"
    work.mkdir(parents=True)
    (work / "config.json").write_text("half")
    (work.parent / ".checkpoint.lock").touch()
    folder = export(work.parent, tiny_folder, tiny_folder.parent / "denoiser.safetensors", "float32")
    assert AutoConfig.from_pretrained(folder).denoiser_rank == 4
    assert not list(folder.glob(".*"))


def test_a_save_that_was_killed_while_its_files_were_moved(checkpoint: Path, tmp_path: Path) -> None:
    """It is finished by whoever loads or exports next; a config that was read before is refused."""
    new: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        new.denoiser.mask_embedding.add_(1)
    for name in ("auto", "own", "export"):
        shutil.copytree(checkpoint, tmp_path / name)
        new.save_pretrained(tmp_path / name / ".checkpoint.ready")
    with pytest.raises(CheckpointError, match=r"broken off.*load it again"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "auto")
    with pytest.raises(DllmError, match="not an empty folder"):
        export(tmp_path / "export")
    for auto, name in ((AutoModelForCausalLM, "auto"), (TriModeForCausalLM, "own"), (TriModeForCausalLM, "export")):
        found: Any = auto.from_pretrained(tmp_path / name)
        assert torch.equal(found.denoiser.mask_embedding, new.denoiser.mask_embedding)


def test_two_exports_to_one_folder_do_not_mix(tiny_folder: Path, tmp_path: Path) -> None:
    """The second is refused, whether the first is at work or done."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    (tmp_path / "new").mkdir()
    with alone(tmp_path / "new" / "checkpoint"), pytest.raises(DllmError, match="another process"):
        export(tmp_path / "new", tiny_folder, denoiser)
    assert not list((tmp_path / "new").iterdir())
    export(tmp_path / "new", tiny_folder, denoiser)
    with pytest.raises(DllmError, match="not an empty folder"):
        export(tmp_path / "new", tiny_folder, denoiser)


def test_damaged_checkpoints_are_noticed(checkpoint: Path, tmp_path: Path) -> None:
    """A config that contradicts the weights does not load quietly."""
    config = json.loads((checkpoint / "config.json").read_text())
    assert AutoConfig.from_pretrained(checkpoint).denoiser_rank == 4
    config["denoiser_rank"] = 5
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="denoiser_rank=5"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.slow
def test_command_line(tiny_folder: Path, tmp_path: Path) -> None:
    """`export` writes what the Auto classes load; an error is one line."""
    command = ["export", str(tmp_path / "out"), "--dtype", "float32", "--base", str(tiny_folder)]
    command += ["--denoiser", str(tiny_folder.parent / "denoiser.safetensors")]
    subprocess.run([sys.executable, "-m", "dllm_transformers", *command], check=True, capture_output=True)
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert isinstance(made, TriModeForCausalLM)
    import_module("dllm_transformers.__main__")
    with pytest.raises(SystemExit) as ended:
        app(command)
    # Which Python writes to stderr, and ends with 1.
    assert str(ended.value.code).startswith("Error:")
    assert "\n" not in str(ended.value.code)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(["--help"], ["export", "serve", "chat"]), (["export", "--help"], ["FOLDER", "--base", "--denoiser", "--dtype"])],
)
def test_command_line_lists_export(arguments: list[str], names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Beside transformers' own commands, and with its own help."""
    import_module("dllm_transformers.__main__")
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
