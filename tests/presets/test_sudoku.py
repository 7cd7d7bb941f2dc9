"""The model `dllm-sudoku` through the engine: accuracy, errors, events, statistics, traces."""

import math
import re
from itertools import islice

import pytest

from dllm_plugins import DllmError
from dllm_plugins import JsonSchema
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.models import Model
from dllm_plugins.models import auto_backend
from dllm_plugins.presets import SUDOKU
from dllm_plugins.presets.model import PuzzleModel
from dllm_plugins.reasoning.sudoku import SudokuTask
from dllm_plugins.reasoning.sudoku import rows_of
from dllm_plugins.reasoning.sudoku import solves
from dllm_plugins.reasoning.task import examples
from dllm_plugins.sharing import SharedModel
from dllm_plugins.tools.tool import Tool
from dllm_plugins.traces import Recorder
from dllm_plugins.traces import page
from dllm_plugins.training.blocks.evaluate import held_out_puzzles

CLUES = "12.. .... .... ..1."
#: What docs/presets.md claims, of boards that were never the answer to a training puzzle.
CLAIMED = 0.9
COUNT = 60


def asked(text: str) -> list[dict[str, str]]:
    """A chat."""
    return [{"role": "user", "content": text}]


def finish_of(model: Model, request: Request) -> Finish:
    """The answer."""
    [found] = model.engine().generate([request])
    return found


def test_unseen_puzzles_are_solved_as_often_as_claimed(sudoku: Model) -> None:
    """Within three standard errors; and what the verdict says of each answer is so."""
    puzzles = held_out_puzzles(COUNT)
    answers = sudoku.engine().generate([sudoku.chat_request(asked(puzzle)) for puzzle in puzzles])
    right = [solves(puzzle, answer.text.replace("\n", "")) for puzzle, answer in zip(puzzles, answers, strict=True)]
    assert sum(right) / COUNT > CLAIMED - 3 * math.sqrt(CLAIMED * (1 - CLAIMED) / COUNT)
    assert [answer.usage.verdict == "right" for answer in answers] == right


def test_an_answer_is_the_solved_grid_alone(sudoku: Model) -> None:
    """Four rows; it has ended by itself, whatever room there was."""
    for room in (16, 256):
        found = finish_of(sudoku, sudoku.chat_request(asked(CLUES), SamplingConfig(max_new_tokens=room)))
        assert found.text == rows_of(found.text.replace("\n", ""))
        assert (found.reason, found.stop_token, len(found.tokens)) == ("eos", None, 16)
        assert found.usage.verdict == found.usage.as_dict()["verdict"] == "right"
        assert found.usage.summary().endswith(" · right")


def test_an_answer_that_is_cut_is_not_right(sudoku: Model) -> None:
    """By its room, and by a stop string."""
    found = finish_of(sudoku, sudoku.chat_request(asked(CLUES), SamplingConfig(max_new_tokens=6)))
    assert (found.reason, found.usage.verdict) == ("length", "unfinished: 6 of 16 cells")
    assert re.fullmatch(r"\d{4}\n\d\d", found.text)
    found = finish_of(sudoku, sudoku.chat_request(asked(CLUES), SamplingConfig(stop=("3",))))
    assert (found.reason, found.text) == ("stop", found.text.partition("3")[0])
    assert str(found.usage.verdict).startswith("unfinished")


def test_a_wrong_answer_is_told_as_any_other(sudoku: Model) -> None:
    """Noise makes it wrong: there is an answer all the same, and the verdict says what is wrong with it."""
    config = SamplingConfig(temperature=50.0, seed=3)
    found = finish_of(sudoku, sudoku.chat_request(asked(CLUES), config))
    assert (found.reason, len(found.text)) == ("eos", 19)
    assert str(found.usage.verdict).startswith("wrong: ")


def test_a_stream_adds_up_and_drafts_keep_the_rows(shared: SharedModel) -> None:
    """Commits are the text in pieces; a draft stands behind what they said, in the grid's lines."""
    said, finish, open_first = "", None, False
    for event in shared.stream(shared.model.chat_request(asked(CLUES))):
        if isinstance(event, Commit):
            said += event.text
        elif isinstance(event, Draft):
            assert re.fullmatch(r"([1-4·]{4}\n)*[1-4·]{0,4}", event.committed + event.text)
            open_first = open_first or re.search(r"·\n?[1-4]", event.text) is not None
        else:
            finish = event
    assert finish is not None
    assert said == finish.text
    assert open_first, "cells are settled out of order"


def test_a_trace_has_the_grid_s_lines_in_every_frame(sudoku: Model) -> None:
    """Open cells stand in their rows, too."""
    recorder, engine = Recorder(sudoku.tokenizer), sudoku.engine()
    for event in engine.stream(sudoku.chat_request(asked(CLUES), SamplingConfig(logprobs=0))):
        recorder.take(event)
    trace = recorder.trace(asked(CLUES), SUDOKU)
    assert [cell.text[1:] for cell in trace.frames[-1].cells] == [*(["", "", "", "\n"] * 4)[:-1], ""]
    for frame in trace.frames:
        ends = [at for at, cell in enumerate(frame.cells) if cell.text.endswith("\n")]
        assert ends == [at for at in (3, 7, 11) if at < len(frame.cells)]
    assert any(cell.state == "open" and cell.text == "\n" for frame in trace.frames for cell in frame.cells)
    assert "right" in page(trace)


def test_many_at_once_are_what_each_is_alone(shared: SharedModel) -> None:
    """Rows do not depend on their company."""
    puzzles = ["".join(example.prompt) for example in islice(examples(SudokuTask(4), 5, test=True), 4)]
    requests = [shared.model.chat_request(asked(puzzle)) for puzzle in puzzles]
    together = {place: event for place, event in shared.stream_batch(requests) if isinstance(event, Finish)}
    for place, request in enumerate(requests):
        alone = finish_of(shared.model, request)
        assert (together[place].text, together[place].usage.verdict) == (alone.text, alone.usage.verdict)


def test_the_last_message_is_the_puzzle(sudoku: Model) -> None:
    """What was solved before it changes nothing."""
    before = [*asked("..." + "." * 13), {"role": "assistant", "content": "no grid"}]
    assert sudoku.encode_chat([*before, *asked(CLUES)]) == sudoku.encode_chat(asked(CLUES))
    assert sudoku.text_request(CLUES).tokens == sudoku.chat_request(asked(CLUES)).tokens


@pytest.mark.parametrize(
    ("chat", "given", "words"),
    [
        ("why?", {}, "a Sudoku has 16, 36 or 81 cells"),
        (CLUES, {"thinking": True}, "thinking=True: dllm-sudoku answers puzzles"),
        (CLUES, {"tools": [Tool("add", "adds", {"type": "object", "properties": {}})]}, r"tools \(add\)"),
        (CLUES, {"config": SamplingConfig(constraint=JsonSchema({"type": "object"}))}, "constraint=.*answers puzzles"),
        ([{"role": "system", "content": "be kind"}, *asked(CLUES)], {}, "no messages of role 'system'"),
        ([*asked(CLUES), {"role": "assistant", "content": "1"}], {}, "the last message must be one"),
        ([], {}, "the last message must be one"),
    ],
)
def test_what_cannot_be_asked_is_refused(sudoku: Model, chat: object, given: dict[str, object], words: str) -> None:
    """With its reason."""
    messages = asked(chat) if isinstance(chat, str) else chat
    with pytest.raises(DllmError, match=words):
        sudoku.chat_request(messages, **given)  # type: ignore[arg-type]


def test_it_fills_no_texts(sudoku: Model) -> None:
    """A template is refused."""
    with pytest.raises(DllmError, match="answers puzzles and fills no texts"):
        sudoku.fill_request(Template.of_text("a [gap] b", marker="[gap]"))


def test_it_is_a_model_like_any_other(sudoku: Model) -> None:
    """Its name, and what computes it."""
    assert (sudoku.name, type(sudoku)) == (SUDOKU, PuzzleModel)
    assert auto_backend(SUDOKU).modes[0] == "diffusion"


@pytest.mark.parametrize("options", [{"mode": "auto"}, {"mode": "blocks", "rule": "entropy_bound"}, {"mode": "ssd"}])
def test_its_other_modes_answer_too(sudoku: Model, options: dict[str, str]) -> None:
    """Laid out and judged, whatever decodes."""
    found = finish_of(sudoku, sudoku.chat_request(asked(CLUES), SamplingConfig(**options)))
    assert found.text == rows_of(found.text.replace("\n", ""))
    assert (found.reason, found.usage.verdict) == ("eos", "right")
