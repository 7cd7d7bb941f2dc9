"""Answers of every mode under a constraint: always valid, never stuck, never too long, alone and in company."""

import re
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.values import Regex
from dllm_plugins.decoding.program import Answer
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.drafting.acceptance import FORCED
from dllm_plugins.drafting.acceptance import Source
from dllm_plugins.drafting.speculation import Speculation
from dllm_plugins.engine import languages
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from tests.modes.tiny_models import random_network
from tests.modes.tiny_models import spec
from tests.pairs.paired import paired

#: Expressions and the fewest tokens that a text of theirs has.
PATTERNS = {
    "(ab)*c?": 0,
    r'\{"a":"[a-p]{0,6}","b":"(aa|bb|cc)"\}': 12,
    "[abc]{3,9}": 1,
    "x?a|bb|ccc": 1,
    "(a|b)*(c|d)(e|f)": 2,
    "abcabcabc": 3,
}
#: Where a sampler of a family predicts a position at its left neighbour, or never does; others do both.
SHIFTED = {"fast_dllm_v2": True, "idlm": True} | dict.fromkeys(
    [
        "llada2.0",
        "llada2.1",
        "nemotron",
        "nemotron_ar",
        "nemotron_repair",
        "nemotron_speculative",
        "stable_diffcoder",
        "wedlm",
        "wedlm_block",
        "wino",
    ],
    False,
)
HELD = sorted(name for name, sampler in plugins.modes().items() if sampler.unheld is None)
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("llada", {"guidance": 1.0}),
    ("llada", {"approximate_cache": "dual"}),
    ("mdlm", {"guidance": 0.5}),
    ("bd3lm", {"guidance": 0.5}),
    ("fast_dllm", {"revoke": "doubt"}),
    ("fast_dllm", {"revoke": "edit"}),
    ("blocks", {"revoke": "doubt", "rule": "factor"}),
    ("dream", {"preset_options": {"alg": "topk_margin"}}),
    *(("blocks", {"rule": rule}) for rule in sorted(plugins.rules())),
    *(("fast_dllm", {"rule": rule}) for rule in sorted(plugins.rules())),
    *(("diffusion", {"rule": rule}) for rule in sorted(plugins.rules())),
]


def _model(tokenizer: PreTrainedTokenizerFast, mode: str, *, shifted: bool = False, seed: int = 0) -> Model:
    if mode == "pair":
        return paired(_model(tokenizer, "ar"), _model(tokenizer, "sdar", seed=1, shifted=shifted))
    turns = ("ar", "diffusion") if mode == "alternating" else ()
    made = spec(mode, *turns, shifted=shifted, holds=True)
    return Model("tiny", KernelDenoiser(random_network(seed), made), tokenizer)


def _requests(mode: str, patterns: list[str], **options: Any) -> list[Request]:
    """Unequal prompts, lengths, temperatures and seeds; room for one token more than is needed, and for many."""
    return [
        Request(
            [1, 2, 3][: 1 + number % 3],
            SamplingConfig(
                mode=mode,
                max_new_tokens=PATTERNS[pattern] + (1, 9, 17)[number % 3],
                temperature=(0.0, 0.9, 1.5)[number % 3],
                seed=number,
                constraint=Regex(pattern),
                **options,
            ),
        )
        for number, pattern in enumerate(patterns)
    ]


def _check(found: list[Finish], requests: list[Request]) -> None:
    for finish, request in zip(found, requests, strict=True):
        pattern = request.config.constraint.pattern
        assert re.fullmatch(pattern, finish.text), (pattern, finish.text, finish.reason)
        assert len(finish.tokens) <= request.config.max_new_tokens


@pytest.mark.parametrize("mode", HELD)
def test_every_answer_is_one_of_the_language(letters: PreTrainedTokenizerFast, mode: str) -> None:
    """Every mode that says it can, on random weights; a row in company answers as alone."""
    patterns = [pattern for pattern in PATTERNS for _ in range(3)]
    requests = _requests(mode, patterns)
    for shifted in [SHIFTED[mode]] if mode in SHIFTED else [False, True]:
        model = _model(letters, mode, shifted=shifted, seed=int(shifted))
        together = model.engine().generate(requests)
        _check(together, requests)
        alone = [model.engine().generate([request])[0] for request in requests[::4]]
        assert [finish.tokens for finish in alone] == [finish.tokens for finish in together[::4]]


@pytest.mark.parametrize(("mode", "options"), OPTIONS)
def test_rules_caches_and_guidance_keep_to_it(
    letters: PreTrainedTokenizerFast, mode: str, options: dict[str, Any]
) -> None:
    """What a rule commits together, what is reopened, and what is made of two passes' logits."""
    requests = _requests(mode, [*PATTERNS], **options)
    _check(_model(letters, mode).engine().generate(requests), requests)


def test_speculative_equals_ar(letters: PreTrainedTokenizerFast) -> None:
    """Token for token under a constraint, greedy and sampled, whatever is drafted, and in fewer passes."""
    patterns = [pattern for pattern in PATTERNS for _ in range(3)]
    model = _model(letters, "ar", seed=3)
    both = {}
    for mode, options in (
        ("ar", {}),
        ("speculative", {"draft_length": 3}),
        ("speculative", {"drafts": "prompt_lookup"}),
    ):
        engine = Model("tiny", KernelDenoiser(random_network(3), spec("ar", "speculative")), letters).engine()
        both[str(options)] = [finish.tokens for finish in engine.generate(_requests(mode, patterns, **options))]
    assert len(set(map(str, both.values()))) == 1
    assert model.engine().generate(_requests("ar", ["abcabcabc"]))[0].usage.total_passes == 1


@pytest.mark.parametrize("options", [{"draft_length": 3}, {"drafts": "prompt_lookup"}, {}], ids=str)
def test_drafts_obey(
    letters: PreTrainedTokenizerFast, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is verified that may not come, and what has to come behind a draft is verified with it."""
    patterns = [r"((ab|ba)cdefgh){6}", r"(a|b)[c-p]{12}", r"(ab|cd|abcdefgh|cdabefgh)*"]
    accept, seen = Speculation.accept, list[Source]()

    def spied(this: Speculation, answer: Answer) -> int:
        begin, tokens, limits = len(this.row.tokens), [*this.canvas.tokens], this.row.limits
        assert limits is not None
        for place, draft in enumerate(this.verified, begin):
            assert tokens[place] == draft.token
            [mask] = limits.next_masks(tokens, [place])
            assert mask[draft.token]
            assert draft.source != FORCED or mask.sum() == 1
            seen.append(draft.source)
        return accept(this, answer)

    monkeypatch.setattr(Speculation, "accept", spied)
    engine = Model("tiny", KernelDenoiser(random_network(3), spec("ar", "speculative")), letters).engine()
    loop = letters.encode("abcdabcdefghabcdabcd", add_special_tokens=False)
    requests = [
        Request(
            loop,
            SamplingConfig(
                mode="speculative",
                constraint=Regex(pattern),
                seed=seed,
                max_new_tokens=50,
                temperature=1.0,
                **(options or {"preset_options": {"costs": {1: 1.0}}}),
            ),
        )
        for pattern in patterns
        for seed in range(4)
    ]
    found = engine.generate(requests)
    forced = sum((finish.usage.drafts or {})["constraint_accepted"] for finish in found)
    assert 0 < forced <= seen.count(FORCED)
    assert len(seen) > forced


def test_what_has_to_come_takes_no_pass(letters: PreTrainedTokenizerFast) -> None:
    """The only text of a language is written at once; so are the fixed parts of another."""
    [finish] = _model(letters, "blocks").engine().generate(_requests("blocks", ["abcabcabc"]))
    assert (finish.text, finish.usage.total_passes) == ("abcabcabc", 1)
    pattern = r'\{"a":"[a-p]{0,6}","b":"(aa|bb|cc)"\}'
    [finish] = _model(letters, "ar").engine().generate(_requests("ar", [pattern]))
    assert finish.usage.total_passes < len(finish.tokens)


@pytest.mark.parametrize("mode", sorted(set(plugins.modes()) - set(HELD)))
def test_modes_that_cannot_say_why(letters: PreTrainedTokenizerFast, mode: str) -> None:
    """Before the first pass, in plain words."""
    model = _model(letters, mode)
    config = SamplingConfig(mode=mode, constraint=Regex("a"))
    unheld = plugins.modes()[mode].unheld
    assert unheld is not None
    given = {"preset_options": {"expand_token_id": 9, "eos_token_id": 28}} if mode == "dreamon" else {}
    with pytest.raises(OptionError, match=unheld):
        model.engine().admit(Request([1], config.with_options(**given)))


def test_what_cannot_be_fulfilled_is_refused_before_the_first_pass(letters: PreTrainedTokenizerFast) -> None:
    """No text, no room, no end, no constraint at all."""
    engine = _model(letters, "ar").engine()
    for constraint, error, words in (
        (Regex("[^\\s\\S]"), OptionError, "no text fulfils it"),
        (Regex("é"), OptionError, "no text fulfils it"),
        (Regex("abcabcabc"), RequestError, "has 3 tokens, but there is room for 2"),
        (Regex("("), OptionError, "no regular expression"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            engine.admit(Request([1], SamplingConfig(max_new_tokens=2, constraint=constraint)))
    with pytest.raises(OptionError, match="give a Regex, a JsonSchema or a Grammar"):
        SamplingConfig(constraint="abc")
    with pytest.raises(
        OptionError,
        match=r"names none; write eos_token_id into its generation_config.json .* stop_ids of Request in Python",
    ):
        engine.admit(Request([1], SamplingConfig(constraint=Regex("a")), stop_ids=frozenset()))


def test_automata_are_made_once_and_do_not_grow_for_ever(
    letters: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same language has the same automaton; one that remembers too much gives way to a new one."""
    engine = _model(letters, "blocks").engine()

    def automaton() -> TokenAutomaton:
        [request] = _requests("blocks", ["[abc]{3,9}"])
        number = engine.admit(request)
        limits = engine._jobs[number].row.limits
        engine.generate([request])
        assert isinstance(limits, Reach)
        return limits.automaton

    first = automaton()
    assert automaton() is first
    monkeypatch.setattr(languages, "_MOST_REMEMBERED", first.remembered - 1)
    assert automaton() is not first
