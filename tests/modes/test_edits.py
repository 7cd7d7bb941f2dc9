"""Texts of which spans are written anew, by the default model's tiny double."""

from dataclasses import replace
from typing import Any

import pytest

from dllm_plugins import Commit
from dllm_plugins import Edit
from dllm_plugins import EditedText
from dllm_plugins import Finish
from dllm_plugins import Gap
from dllm_plugins import Model
from dllm_plugins import Regex

TEXT = "once upon a time there was a king"


def test_everything_else_is_kept(tiny: Model) -> None:
    """Whatever is drawn; the changes say where everything stands."""
    chosen: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 3}]
    for options in chosen:
        edit = Edit(TEXT, [(5, 9), (17, 17), (29, 33)], max_tokens=5)
        found = tiny.edit(edit, **options)
        behind = 0
        for change, (begin, end) in zip(found.changes, edit.spans, strict=True):
            assert change.before == TEXT[begin:end]
            assert found.text[change.at[0] : change.at[1]] == change.after
            assert found.text[: change.at[0]].endswith(TEXT[behind:begin])
            behind = end
        pieces = [*tiny.fill_stream(edit.template, **options)]
        assert "".join(piece for piece in pieces if isinstance(piece, str)) == found.text


def test_a_batch_and_a_form(tiny: Model) -> None:
    """Edits share passes; each span is of its form."""
    edits = [Edit(TEXT, [(5, 9)], 6, Regex("[a-z]{3}")), Edit.of_words(TEXT, ["king"], max_tokens=4)]
    done = tiny.engine().generate([tiny.edit_request(edit) for edit in edits])
    for edit, finish in zip(edits, done, strict=True):
        assert EditedText.of(edit, finish).text == tiny.edit(edit).text
    after = EditedText.of(edits[0], done[0]).changes[0].after
    assert len(after) == 3 and after.isalpha()


@pytest.mark.parametrize("head", ["e ", " "])
def test_a_head_is_in_no_gaps_text(tiny: Model, head: str) -> None:
    """Where kept characters are written with the gap's tokens, nobody is told of them twice, streamed or not."""
    request = tiny.edit_request(Edit(TEXT, [(5, 9)], 6))
    [before, gap, *rest] = request.template
    assert isinstance(gap, Gap)
    gap = replace(gap, head=head, constraint=Regex(f"{head}[a-z]{{3}}"))
    request = replace(request, template=[before, gap, *rest])
    told = ""
    for event in tiny.engine().stream(request):
        if isinstance(event, Finish):
            [filled] = event.gaps
            assert told == filled.text
            assert len(filled.text) == 3
            assert len(filled.tokens) == 3 + len(head)
        elif isinstance(event, Commit):
            told += "".join(event.gaps)
