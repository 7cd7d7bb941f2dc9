"""The default model between fixed texts: what is seen of them, where gaps end, what is forwarded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import FilledText
from dllm_plugins import Finish
from dllm_plugins import Gap
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.modes import infilling
from dllm_plugins.modes.infilling import weighed

from .tiny_models import EOS
from .tiny_models import says
from .tiny_models import scripted_model

TEMPLATE = Template("once", Gap(tokens=6), " upon", Gap(max_tokens=9), " a time", Gap(max_tokens=5))
BEHIND = Template("once upon a", Gap(max_tokens=12), " there was a king who")


def test_a_text_with_gaps(tiny: Model) -> None:
    """Fixed texts stand as they were given, lengths are kept, and the figures are honest."""
    for options in ({}, {"temperature": 1.0, "seed": 3}, {"rule": "quota", "steps": 2}, {"block_length": 3}):
        found = tiny.fill(TEMPLATE, **options)
        first, second, third = found.gaps
        assert found.text == f"once{first} upon{second} a time{third}"
        [finish] = tiny.engine().generate([tiny.fill_request(TEMPLATE, **options)])
        assert [len(gap.tokens) <= most for gap, most in zip(finish.gaps, (6, 9, 5), strict=True)] == [True] * 3
        assert len(finish.gaps[0].tokens) == 6
        assert finish.usage.useful_tokens == sum(len(gap.tokens) for gap in finish.gaps)
        assert finish.usage.mode == "diffusion"
        assert finish.usage.cache == "exact"
        # Every token is one byte.
        assert finish.usage.prompt_tokens == len("once upon a time")


def test_streaming(tiny: Model) -> None:
    """Pieces add up to the whole text, which comes last."""
    *pieces, found = tiny.fill_stream(TEMPLATE, temperature=1.0, seed=3)
    assert isinstance(found, FilledText)
    whole = tiny.fill(TEMPLATE, temperature=1.0, seed=3)
    assert (found.text, found.gaps, found.reasons) == (whole.text, whole.gaps, whole.reasons)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == found.text
    assert len(pieces) > 3


def test_behind_a_chat(tiny: Model) -> None:
    """The template begins the assistant's answer; nothing of it is in the text."""
    chat = [{"role": "user", "content": "why?"}]
    found = tiny.fill(Template("Because", Gap(tokens=4), ".", chat=chat))
    assert found.text == f"Because{found.gaps[0]}."
    assert found.usage.prompt_tokens == len(tiny.encode_chat(chat)) + len("Because.")


def test_a_gap_may_begin_the_text(tiny: Model) -> None:
    """The base needs a token to go on from: that which begins texts."""
    request = tiny.fill_request(Template(Gap(max_tokens=4), "upon"))
    assert list(request.tokens) == [tiny.tokenizer.bos_token_id]
    assert tiny.fill(Template(Gap(max_tokens=4), "upon")).text.endswith("upon")


@pytest.mark.parametrize("options", [{}, {"temperature": 0.9}])
def test_a_batch_equals_each_alone(tiny: Model, options: dict[str, Any]) -> None:
    """Unequal templates, and one that just goes on."""
    templates = [TEMPLATE, BEHIND, Template("x", Gap(max_tokens=3))]
    seeds: list[dict[str, Any]] = [{"seed": number} if options else {} for number in range(4)]
    requests = [
        tiny.fill_request(one, mode="diffusion", **options, **seed) for one, seed in zip(templates, seeds, strict=False)
    ]
    config = SamplingConfig(mode="diffusion", max_new_tokens=9, **options, **seeds[3])
    requests.append(Request(tiny.encode_text("once"), config))
    together = tiny.engine().generate(requests)
    for request, finish in zip(requests, together, strict=True):
        [alone] = tiny.engine().generate([request])
        assert (alone.tokens, alone.gaps) == (finish.tokens, finish.gaps)


def test_what_follows_changes_what_is_written(tiny: Model) -> None:
    """Already the first token, although the clean row that says it sees nothing behind it."""
    texts = ("xyzzy", "nothing at all", "0123456789", "the end")
    found = {tiny.fill(Template("once upon a", Gap(tokens=5), text)).gaps for text in texts}
    assert len(found) > 1
    assert len({gaps[0][:1] for gaps in found}) > 1


def test_without_anything_behind_it_is_mode_diffusion(tiny: Model) -> None:
    """The very text: a gap at the end is an answer."""
    cases: list[dict[str, Any]] = [{}, {"temperature": 0.7, "seed": 4}]
    for mask in cases:
        asked = SamplingConfig(mode="diffusion", max_new_tokens=12, **mask)
        expected = tiny.engine().generate([Request(tiny.encode_text("once upon"), asked)])[0]
        found = tiny.fill(Template("once upon", Gap(max_tokens=12)), mode="diffusion", **mask)
        assert found.gaps == (expected.text,)


def test_a_suffix_of_a_request(tiny: Model) -> None:
    """The same as a template with one gap."""
    behind = tiny.fill(Template("once", Gap(max_tokens=7), " upon")).gaps[0]
    config = SamplingConfig(mode="diffusion", max_new_tokens=7)
    asked = Request(tiny.encode_text("once"), config, suffix=tiny.encode_text(" upon"))
    assert tiny.engine().generate([asked])[0].text == behind
    with pytest.raises(OptionError, match=r"mode 'ar' writes to the end .* use mode 'diffusion'"):
        tiny.fill(BEHIND, mode="ar")


def test_the_frontier_by_bayes() -> None:
    """What the clean row says times what seeing the rest makes of it, among what is plausible."""
    clean = torch.log(torch.tensor([[0.5, 0.3, 0.19, 0.01]]))
    blind = torch.log(torch.tensor([[0.4, 0.2, 0.2, 0.2]]))
    seeing = torch.log(torch.tensor([[0.1, 0.2, 0.2, 0.5]]))
    found = torch.softmax(weighed(clean, seeing, blind), dim=-1)
    expected = torch.tensor([[0.5 / 4, 0.3, 0.19, 0.0]])
    assert torch.allclose(found, expected / expected.sum())
    assert torch.allclose(torch.softmax(weighed(clean, blind, blind), -1)[0, :3], clean.exp()[0, :3] / 0.99)


def spying(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> list[list[Segment]]:
    """The segments of every pass from here on."""
    passes: list[list[Segment]] = []
    forward = tiny.denoiser.forward

    def spied(segments: Any) -> list[Tensor]:
        passes.append(list(segments))
        return forward(segments)

    monkeypatch.setattr(tiny.denoiser, "forward", spied)
    return passes


def test_what_stands_behind_is_forwarded_where_it_stands(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean, in every pass, at its true positions, 64 tokens at most; the two rows of the frontier sit before it."""
    passes = spying(tiny, monkeypatch)
    tiny.fill(Template("once", Gap(tokens=3), "x" * 70))
    assert len(passes) >= 1
    for segments in passes:
        [suffix] = [one for one in segments[1:] if not one.noisy and len(one.tokens) > 10]
        assert list(suffix.positions) == list(range(7, 7 + infilling.IN_VIEW))
        frontier = [one for one in segments if one.noisy and len(one.tokens) == 1][:2]
        assert [list(one.positions) for one in frontier] == [[segments[0].positions[-1]]] * 2


def test_cached_equals_recomputed(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass says the same without the prefix that was kept for it."""
    told: list[tuple[list[Segment], list[Tensor]]] = []
    forward = tiny.denoiser.forward

    def spied(segments: Any) -> list[Tensor]:
        told.append((list(segments), forward(segments)))
        return told[-1][1]

    monkeypatch.setattr(tiny.denoiser, "forward", spied)
    request = tiny.fill_request(BEHIND, temperature=1.0, seed=2)
    [finish] = tiny.engine().generate([request])
    assert finish.usage.passes.keys() == {"prefill", "fused", "join"}
    monkeypatch.undo()
    text: list[int] = []
    for segments, hidden in told:
        clean, *others = segments
        begin = clean.positions[0]
        text[begin:] = clean.tokens
        row = tiny.denoiser.open_row()
        wanted = [place + begin for place in clean.wanted]
        anew = [replace(clean, row=row, tokens=list(text), positions=range(len(text)), wanted=wanted)]
        for one in others:
            behind = tuple((index, count + begin * (index == 0)) for index, count in one.behind)
            anew.append(replace(one, row=row, behind=behind))
        for found, expected in zip(tiny.denoiser.forward(anew), hidden, strict=True):
            assert torch.allclose(found, expected, atol=1e-4)
        tiny.denoiser.close_row(row)


def counting(*tokens: int) -> Model:
    """Says at every position which token follows, whatever was written."""

    def script(seen: dict[int, int], position: int) -> Tensor:
        return says(tokens[min(position + 1, len(tokens) - 1)], 9.0)

    return scripted_model(script, "diffusion", block_length=2, mask_id=40)


def fill(model: Model, *template: Any, prompt: tuple[int, ...] = (3, 4)) -> Finish:
    config = SamplingConfig(mode="diffusion")
    return model.engine().generate([Request(prompt, config, template=template)])[0]


def test_a_stop_token_ends_a_bounded_gap_only() -> None:
    """In a fixed one it is never drawn."""
    made = counting(3, 4, 5, EOS, 6, 7, 8, 9, 9, 9)
    bounded = fill(made, Gap(max_tokens=4), [9, 9])
    assert (bounded.gaps[0].tokens, bounded.gaps[0].reason) == ((5,), "eos")
    assert bounded.tokens == (5,)
    fixed = fill(made, Gap(tokens=4), [9, 9])
    assert len(fixed.gaps[0].tokens) == 4
    assert EOS not in fixed.gaps[0].tokens


def test_a_gap_ends_where_it_repeats_what_follows() -> None:
    """And nothing more is forwarded."""
    made = counting(3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
    finish = fill(made, Gap(max_tokens=12), [10, 11, 12, 13, 14])
    assert (finish.gaps[0].tokens, finish.gaps[0].reason) == ((5, 6), "follows")


def test_a_stop_string_ends_a_gap_for_the_gaps_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it cuts off is not written any further, and no later gap sees it; so does the text behind a gap."""
    made = counting(3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
    passes = spying(made, monkeypatch)
    config = SamplingConfig(mode="diffusion", stop=(made.tokenizer.decode([7]),))
    template = (Gap(max_tokens=9), [20, 21], Gap(tokens=2), [22])
    [finish] = made.engine().generate([Request((3, 4), config, template=template)])
    assert (finish.gaps[0].tokens, finish.gaps[0].reason) == ((5, 6), "stop")
    last = [token for segment in passes[-1] if not segment.noisy for token in segment.tokens]
    assert last[: last.index(20)] == [4, 5, 6]
    assert finish.tokens == (5, 6, 20, 21, *finish.gaps[1].tokens)


def test_a_gap_ends_where_what_follows_is_likeliest(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end that the base prefers, found by scoring every one of them from the beginning."""
    ends: list[tuple[list[int], int]] = []
    inner: Callable[..., Any] = infilling.Infilling._best_end

    def spied(self: Any, written: Any) -> Any:
        count = yield from inner(self, written)
        ends.append((list(written), count))
        return count

    monkeypatch.setattr(infilling.Infilling, "_best_end", spied)
    before, behind = tiny.encode_text("once upon a"), tiny.encode_text(" there was a king who")
    for seed in range(3):
        tiny.fill(BEHIND, temperature=1.0, seed=seed)
    assert ends
    for written, count in ends:
        scores = []
        for length in range(1, len(written) + 1):
            text = [*before, *written[:length], *behind[: infilling.TELLING]]
            handle = tiny.denoiser.open_row()
            wanted = range(len(text) - 1)
            [hidden] = tiny.denoiser.forward([Segment(handle, text, range(len(text)), wanted=wanted)])
            tiny.denoiser.close_row(handle)
            said = torch.log_softmax(tiny.denoiser.logits(hidden).float(), -1)
            scores.append(float(said.gather(1, torch.tensor(text[1:])[:, None])[-infilling.TELLING :].sum()))
        assert scores[count - 1] == pytest.approx(max(scores), abs=1e-4)


def test_backends_that_cannot_show_what_follows_refuse() -> None:
    """llama.cpp decodes clean and open rows in turns; the remedy is another backend."""
    made = scripted_model(lambda _seen, _position: says(5), "diffusion", block_length=2, mask_id=40, mixes=False)
    with pytest.raises(OptionError, match=r"fills no gaps where clean and open rows take turns; .*backend='kernels'"):
        fill(made, Gap(tokens=2), [9])
