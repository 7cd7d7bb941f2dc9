"""LLaDA's sampler beyond the golden data: batches, stops, rules, drafts, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dllm_plugins import DllmError
from dllm_plugins import Engine
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import RequestError

from ..golden.cases import FOLDERS


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Any:
    """A case as a folder users would have: with its mask id in the config, and a tokenizer."""
    loaded: dict[str, Model] = {}

    def made(folder: Path) -> Model:
        if folder.name not in loaded:
            position = tmp_path_factory.mktemp("hub") / folder.name
            shutil.copytree(folder / "checkpoint", position)
            case = json.loads((folder / "case.json").read_text())
            config = json.loads((position / "config.json").read_text()) | {"mask_token_id": case["mask_id"]}
            (position / "config.json").write_text(json.dumps(config))
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(tiny_folder / name, position)
            loaded[folder.name] = load_model(str(position), dtype="float32", device="cpu")
        return loaded[folder.name]

    return made


def test_batches_equal_rows_alone(load: Any) -> None:
    """Unequal prompts, options and seeds, sampled; bit for bit, since sequences are forwarded one by one."""
    model = load(FOLDERS["llada_dense"])
    requests = [
        Request(
            [5 + number] * (3 + 4 * number),
            SamplingConfig(max_new_tokens=9 + number, block_length=4, temperature=0.7 * (number % 2), seed=number),
        )
        for number in range(5)
    ]
    alone = [model.engine().generate([request])[0].tokens for request in requests]
    assert [finish.tokens for finish in model.engine().generate(requests)] == alone


def test_stop_ids_end_the_work_early(load: Any) -> None:
    """The answer is what stands before the first end-of-text, in fewer passes."""
    model = load(FOLDERS["llada_dense"])
    options: dict[str, Any] = {"max_new_tokens": 32, "block_length": 8, "steps": 16}
    whole = model.engine().generate([Request([5, 6, 7], SamplingConfig(**options), stop_ids=frozenset())])[0]
    stop = whole.tokens[9]
    cut = model.engine().generate([Request([5, 6, 7], SamplingConfig(**options), stop_ids=frozenset({stop}))])[0]
    assert cut.tokens == whole.tokens[: whole.tokens.index(stop)]
    assert cut.reason == "eos"
    assert cut.usage.total_passes < whole.usage.total_passes
    assert (cut.usage.cache, cut.usage.mode) == ("none", "diffusion")


@pytest.mark.parametrize("options", [{"threshold": 0.01}, {"factor": 40.0}, {"rule": "random", "steps": 3}])
def test_other_rules(load: Any, options: dict[str, Any]) -> None:
    """No mask is left, and the budget is kept exactly, whatever the block length."""
    model = load(FOLDERS["llada_dense"])
    config = SamplingConfig(max_new_tokens=11, block_length=4, seed=1, **options)
    finish = model.engine().generate([Request([5, 6, 7], config, stop_ids=frozenset())])[0]
    assert len(finish.tokens) == 11
    assert model.denoiser.spec.mask_id not in finish.tokens
    assert finish.usage.total_passes <= 11


def test_drafts_show_the_canvas(load: Any) -> None:
    """Committed tokens behind a gap are tentative until it is closed; commits come in order."""
    model = load(FOLDERS["llada_dense"])
    engine: Engine = model.engine()
    events = list(engine.stream(Request([5, 6, 7], SamplingConfig(max_new_tokens=16, block_length=16, steps=16))))
    drafts = [event.tokens for event in events if type(event).__name__ == "Draft"]
    assert any(None in draft and any(token is not None for token in draft) for draft in drafts)
    committed = [token for event in events if type(event).__name__ == "Commit" for token in event.tokens]
    assert tuple(committed) == events[-1].tokens


def test_a_mask_in_the_prompt_is_refused(load: Any) -> None:
    """The reference takes it for an open position and may leave masks in its output."""
    model = load(FOLDERS["llada_dense"])
    with pytest.raises(RequestError, match="mask id"):
        model.engine().admit(Request([5, model.denoiser.spec.mask_id], SamplingConfig()))


def test_what_a_checkpoint_does_not_serve(load: Any, tmp_path: Path) -> None:
    """Other modes and options, families that are not decoded yet, options of the default model."""
    model = load(FOLDERS["llada_dense"])
    for options in ({"mode": "ar"}, {"mode": "speculative"}, {"draft_length": 3}, {"steps": 3, "threshold": 0.5}):
        with pytest.raises(DllmError):
            model.engine().admit(Request([5], SamplingConfig(**options)))
    shutil.copytree(FOLDERS["sdar"] / "checkpoint", tmp_path / "sdar")
    with pytest.raises(DllmError, match="denoiser="):
        load_model(str(tmp_path / "sdar"), denoiser="x")
    with pytest.raises(CheckpointError, match="neither a folder"):
        load_model(str(tmp_path / "nothing"))


def test_chat_templates(load: Any, tiny_folder: Path) -> None:
    """LLaDA's shipped template is replaced; a model without any says so."""
    model = load(FOLDERS["llada_dense"])
    tokenizer: PreTrainedTokenizerBase = model.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": " Hi "}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_any_dtype(load: Any, tmp_path: Path) -> None:
    """bfloat16 decodes too."""
    position = Path(load(FOLDERS["llada_dense"]).name)
    model = load_model(str(position), dtype="bfloat16")
    finish = model.engine().generate([Request([5, 6, 7], SamplingConfig(max_new_tokens=8, block_length=8, steps=4))])[0]
    assert model.denoiser.model.dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert finish.usage.total_passes <= 4
