"""Drafts: the whole canvas after every pass, the mask id where it is open, for every family's sampler."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer
from transformers.generation.streamers import TextDiffusionStreamer

from dllm_plugins import DllmError
from dllm_transformers import BatchStreamer
from dllm_transformers import DiffusionModelForCausalLM

from ..golden.cases import FOLDERS
from .checkpoints import NEEDED
from .checkpoints import Case
from .checkpoints import copy_of

LENGTH = 12
GREEDY: dict[str, Any] = {"max_new_tokens": LENGTH, "do_sample": False, "seed": 3}
PROMPTS = torch.tensor([[7, 8, 9], [20, 21, 22], [11, 12, 13]])
#: Their canvas has other sizes than the answer: it grows and shrinks, or goes on block by block.
OF_OTHER_SIZE = ("dreamon", "fastdllm_v2", "nemotron")


class Listener(BaseStreamer):
    """Remembers what it is given, in order, and what was final when a draft came."""

    def __init__(self) -> None:
        self.final: list[list[int]] = []
        self.drafts: list[tuple[int, Tensor]] = []

    def put(self, value: Tensor) -> None:
        self.final.append(value.flatten().tolist())

    def put_draft(self, value: Tensor) -> None:
        self.drafts.append((sum(map(len, self.final[1:])), value))

    def end(self) -> None: ...


def load(name: str, folder: Path, tokenizer: Path) -> Any:
    """A model with the sampler of its checkpoint."""
    place = copy_of(name, folder / name, tokenizer)
    needed = dict(NEEDED.get(name, {}))
    model = DiffusionModelForCausalLM.from_pretrained(place, **needed)
    if "diffusion" not in model.checkpoint.layout.modes:
        needed.setdefault("preset", model.checkpoint.layout.samplers[0])
        model = DiffusionModelForCausalLM.from_pretrained(place, **needed)
    return model


@pytest.mark.parametrize("name", FOLDERS)
def test_the_whole_canvas_after_every_pass(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """A draft for each pass but the last; final ids and canvas are the answer's length; what is open is the mask."""
    model, listener, options = load(name, tmp_path, tiny_folder), Listener(), dict(GREEDY)
    expand = Case(name, FOLDERS[name]).about.get("expand_id")
    if expand is not None:
        options["preset_options"] = {"expand_token_id": expand}
    found = model.generate(PROMPTS[:1], streamer=listener, return_dict_in_generate=True, **options)
    passes, whole = found.usage[0]["total_passes"], not name.startswith(OF_OTHER_SIZE)
    assert 0 < len(listener.drafts) <= passes - 1
    assert len(listener.drafts) == passes - 1 or not whole
    mask, vocabulary = model.spec.mask_id, model.spec.vocabulary
    for told, draft in listener.drafts:
        assert draft.dtype == torch.int64
        assert draft.shape[0] == 1
        assert all(0 <= token < vocabulary or token == mask for token in draft[0].tolist())
        assert told + draft.shape[1] == LENGTH or not whole


def test_tokens_behind_a_gap(llada: Path) -> None:
    """LLaDA commits whatever is surest: tokens behind open positions are shown where they stand."""
    model, listener = DiffusionModelForCausalLM.from_pretrained(llada), Listener()
    ids = model.generate(PROMPTS[:1], streamer=listener, block_length=LENGTH, **GREEDY)[0, 3:].tolist()
    mask, gaps = model.spec.mask_id, 0
    for number, (told, draft) in enumerate(listener.drafts, start=1):
        canvas = [*ids[:told], *draft[0].tolist()]
        assert sum(token != mask for token in canvas) == number
        assert all(token in (mask, final) for token, final in zip(canvas, ids, strict=True))
        gaps += mask in canvas[: max(place for place, token in enumerate(canvas) if token != mask)]
    assert gaps > 3


def test_all_rows_at_once_or_each_by_itself(llada: Path) -> None:
    """A streamer of batches gets one draft a pass, [batch, n]; streamers of rows get those of the row alone."""
    model, together = DiffusionModelForCausalLM.from_pretrained(llada), Listener()
    model.generate(PROMPTS, streamer=together, **GREEDY)
    rows = [Listener() for _ in PROMPTS]
    model.generate(PROMPTS, streamer=BatchStreamer(rows), **GREEDY)
    assert len(together.drafts) == LENGTH - 1
    assert all(draft.shape[0] == 3 for _, draft in together.drafts)
    for place, row in enumerate(rows):
        alone = Listener()
        model.generate(PROMPTS[place : place + 1], streamer=alone, **{**GREEDY, "seed": 3 + place})
        assert [(told, draft.tolist()) for told, draft in row.drafts] == [
            (told, draft.tolist()) for told, draft in alone.drafts
        ]
        for (told, draft), (put, batch) in zip(alone.drafts, together.drafts, strict=False):
            # Columns wait for the slowest row, so the batch's draft begins farther left.
            behind = told - put // 3
            assert behind >= 0
            assert batch[place, behind : behind + draft.shape[1]].tolist() == draft[0].tolist()


def test_the_canvas_of_the_default_model(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mask id is virtual: streamers of text pass over it."""
    listener, options = Listener(), {**GREEDY, "custom_generate": partial(strategy, mode="diffusion", threshold=0.01)}
    del options["seed"]
    answer = model.generate(PROMPTS[:1], streamer=listener, **options)[0, 3:].tolist()
    assert model.config.vocab_size in {token for _, draft in listener.drafts for token in draft[0].tolist()}
    streamer = TextDiffusionStreamer(tokenizer, skip_prompt=True)
    model.generate(PROMPTS[:1], streamer=streamer, **options)
    assert str(tokenizer.decode(answer)) in capsys.readouterr().out.replace("\0338\033[J", "")


def test_a_streamer_that_wants_logits(llada: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """It would take ids for logits: refused, alone and among others."""
    model, streamer = DiffusionModelForCausalLM.from_pretrained(llada), TextDiffusionStreamer(tokenizer)
    streamer._takes_logits = True
    for given in (streamer, BatchStreamer([streamer])):
        with pytest.raises(DllmError, match="TextDiffusionStreamer has _takes_logits=True"):
            model.generate(PROMPTS[:1], streamer=given, **GREEDY)
