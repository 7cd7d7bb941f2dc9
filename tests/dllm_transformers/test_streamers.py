"""Streamers: given to generate() itself, bound to the strategy, for one row and for batches."""

import threading
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers import StoppingCriteriaList
from transformers import TextIteratorStreamer
from transformers import TextStreamer
from transformers.generation.streamers import BaseStreamer
from transformers.generation.streamers import TextDiffusionStreamer

from dllm_plugins import DllmError
from dllm_transformers import BatchStreamer
from dllm_transformers import generate

PROMPT = torch.tensor([[5, 9, 77, 120, 33]])
BATCH = torch.tensor([[5, 9, 77, 120, 33], [40, 41, 42, 43, 44], [200, 201, 202, 203, 204]])
GREEDY: dict[str, Any] = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}


class Listener(BaseStreamer):
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.ids: list[Tensor] = []
        self.drafts: list[Tensor] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        self.ids.append(value)

    def put_draft(self, value: Tensor) -> None:
        self.drafts.append(value)

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("way", ["generate", "bound", "front door"])
def test_prompt_commits_and_drafts_in_order(model: Any, strategy: partial[Any], way: str) -> None:
    """However the streamer is handed over: the prompt once, all ids of the answer, drafts, one end."""
    listener = Listener()
    if way == "generate":
        ours = model.generate(PROMPT, streamer=listener, custom_generate=strategy, **GREEDY)
    elif way == "bound":
        ours = model.generate(PROMPT, custom_generate=partial(strategy, streamer=listener), **GREEDY)
    else:
        ours = generate(model, PROMPT, streamer=listener, denoiser=strategy.keywords["denoiser"], **GREEDY)
    assert listener.ids[0].tolist() == PROMPT.tolist()
    assert [token for ids in listener.ids for token in ids.flatten().tolist()] == ours[0].tolist()
    assert len(listener.ids) > 2
    assert listener.drafts
    assert all(draft.shape[0] == 1 for draft in listener.drafts)
    assert listener.ended == 1


def test_columns_of_a_batch(model: Any, strategy: partial[Any]) -> None:
    """A streamer of batches gets [batch] ids for one position after another, as in AR decoding."""
    listener = Listener()
    ours = model.generate(BATCH, streamer=listener, custom_generate=strategy, **GREEDY)
    assert listener.ids[0].tolist() == BATCH.tolist()
    assert torch.stack(listener.ids[1:], dim=1).tolist() == ours[:, 5:].tolist()
    assert all(draft.shape[0] == 3 for draft in listener.drafts)
    assert listener.drafts
    assert listener.ended == 1


def test_one_streamer_for_each_row(model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Rows stream as fast as they are decoded, each to its end."""
    rows = [Listener() for _ in BATCH]
    ours = model.generate(BATCH, streamer=BatchStreamer(rows), custom_generate=strategy, **GREEDY)
    for place, row in enumerate(rows):
        found = [token for ids in row.ids for token in ids.flatten().tolist()]
        expected = ours[place].tolist()
        assert found == expected[: len(found)]
        assert set(expected[len(found) :]) <= {0}
        assert row.drafts
        assert row.ended == 1
    with pytest.raises(DllmError, match="holds 3 streamers"):
        model.generate(PROMPT, streamer=BatchStreamer(rows), custom_generate=strategy, **GREEDY)


def test_text_streamers(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers' own: printed text, a thread's iterator, drafts in place."""
    answer = model.generate(PROMPT, custom_generate=strategy, **GREEDY)[0, 5:]
    expected = str(tokenizer.decode(answer, skip_special_tokens=True))
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate(PROMPT, streamer=streamer, custom_generate=strategy, **GREEDY)
    assert capsys.readouterr().out == expected + "\n"

    iterator = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=20, skip_special_tokens=True)
    arguments = {"streamer": iterator, "custom_generate": strategy, **GREEDY}
    thread = threading.Thread(target=model.generate, args=(PROMPT,), kwargs=arguments)
    thread.start()
    assert "".join(iterator) == expected
    thread.join()

    model.generate(
        PROMPT, streamer=TextDiffusionStreamer(tokenizer, skip_prompt=True), custom_generate=strategy, **GREEDY
    )
    assert "\033[33m" in capsys.readouterr().out


def test_a_streamer_that_raises_frees_the_rows(model: Any, strategy: partial[Any]) -> None:
    """As `transformers serve` does when a client goes away; the next call works."""

    class Leaver(Listener):
        def put(self, value: Tensor) -> None:
            super().put(value)
            if len(self.ids) > 2:
                raise ConnectionResetError("the client left")

    with pytest.raises(ConnectionResetError):
        model.generate(PROMPT, streamer=Leaver(), custom_generate=strategy, **GREEDY)
    from dllm_transformers.weights import shared_model_of

    assert not shared_model_of(model, strategy.keywords["denoiser"])._engine.active


@pytest.mark.parametrize("way", ["generate", "bound", "front door"])
@pytest.mark.parametrize("fault", ["a refused option", "an argument with no place", "a criterion that raises"])
def test_what_is_raised_ends_the_streamer(model: Any, strategy: partial[Any], way: str, fault: str) -> None:
    """Once, however it was handed over: whoever reads from it in another thread would wait for ever."""

    def leave(*_: Any) -> Tensor:
        raise KeyboardInterrupt

    wrong: dict[str, Any] = {
        "a refused option": {"num_beams": 4},
        "an argument with no place": {"assistant_model": model},
        "a criterion that raises": {"stopping_criteria": StoppingCriteriaList([leave])},
    }[fault]
    listener = Listener()
    with pytest.raises((DllmError, KeyboardInterrupt)):
        if way == "generate":
            model.generate(PROMPT, streamer=listener, custom_generate=strategy, **GREEDY, **wrong)
        elif way == "bound":
            model.generate(PROMPT, custom_generate=partial(strategy, streamer=listener), **GREEDY, **wrong)
        else:
            generate(model, PROMPT, streamer=listener, denoiser=strategy.keywords["denoiser"], **GREEDY, **wrong)
    assert listener.ended == 1
