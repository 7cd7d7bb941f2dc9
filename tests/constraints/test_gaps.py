"""Gaps under a constraint in every mode that fills gaps: valid, fixed text as it was, never longer than asked."""

import re
from functools import cache
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from dllm_plugins import FilledText
from dllm_plugins import Finish
from dllm_plugins import Gap
from dllm_plugins import JsonSchema
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins import plugins
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.engine import gap_texts
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from tests.modes.test_gaps import BLOCKS
from tests.modes.test_gaps import EITHER
from tests.modes.test_gaps import TAKING_BACK
from tests.modes.test_gaps import WHOLE
from tests.modes.tiny_models import EOS
from tests.modes.tiny_models import random_network
from tests.modes.tiny_models import spec

HELD = {name for name, sampler in plugins.modes().items() if sampler.suffix and sampler.unheld is None}
OBJECT = r'\{"a":"[a-d]{0,6}","b":"(aa|bb|cc)"\}'
#: Gaps of their own, and one that may hold anything.
OWN = Template(
    "ab",
    Gap(max_tokens=6, constraint=Regex("(a|b)*(c|d)(e|f)")),
    "abcab",
    Gap(tokens=3, constraint=Regex("[abc]{3,9}")),
    "c",
    Gap(max_tokens=2),
    "d",
    Gap(max_tokens=3, constraint=Regex("(ab)*c?")),
)
#: A text that is an object with gaps in its strings, and one in which a gap has to be short.
TEXT = Template('{"a":"', Gap(max_tokens=5), '","b":"', Gap(max_tokens=3), '"}')
#: Gaps that must be something by themselves, in a text that must be something, too.
BOTH = Template(
    '{"a":"',
    Gap(max_tokens=5, constraint=Regex("[ab]*c?")),
    '","b":"',
    Gap(tokens=2, constraint=Regex("bb|cc|ad")),
    '"}',
)
SHORT = Template("abc", Gap(max_tokens=7), "abc", Gap(max_tokens=3))


@cache
def model(kind: str, tokenizer: PreTrainedTokenizerFast) -> Model:
    """Random weights that see the whole canvas, or blocks, or are the default model's."""
    made = {
        "whole": lambda: spec(*WHOLE, *EITHER, cache="none", holds=True),
        "blocks": lambda: spec(*BLOCKS, *EITHER, block_length=24),
        "diffusion": lambda: spec("diffusion", block_length=3),
    }[kind]()
    return Model("tiny", KernelDenoiser(random_network(), made), tokenizer)


def cases() -> list[Any]:
    """A kind of model, a sampler, and options that it has there."""
    kinds = {"whole": (*WHOLE, *EITHER), "blocks": (*BLOCKS, *EITHER), "diffusion": ("diffusion",)}
    found: list[tuple[str, str, dict[str, Any]]] = [
        (kind, name, {}) for kind, names in kinds.items() for name in names if name in HELD
    ]
    found += [(kind, name, own) for name, own in TAKING_BACK.items() for kind in kinds if name in kinds[kind]]
    found += [("whole", "llada", {"guidance": 1.0}), ("whole", "llada", {"approximate_cache": "dual"})]
    return [pytest.param(*case, id="-".join([case[0], case[1], *case[2]])) for case in found]


def check(template: Template, finish: Finish, pattern: str | None = None) -> FilledText:
    """Texts, lengths, and what is fixed."""
    found = FilledText.of(template, finish)
    assert pattern is None or re.fullmatch(pattern, found.text), found
    for gap, filled in zip(template.gaps, finish.gaps, strict=True):
        assert len(filled.tokens) <= gap.room
        assert gap.bounded or len(filled.tokens) == gap.room
        assert EOS not in filled.tokens
        if isinstance(gap.constraint, Regex):
            assert re.fullmatch(gap.constraint.pattern, filled.text), filled
            assert filled.reason != "stop"
    return found


@pytest.mark.parametrize(("kind", "mode", "own"), cases())
def test_every_gap_is_what_was_asked_for(
    letters: PreTrainedTokenizerFast, kind: str, mode: str, own: dict[str, Any]
) -> None:
    """Greedy and drawn, each alone and all together; in the text as a whole, too."""
    made = model(kind, letters)
    asked: list[tuple[Template, str | None, dict[str, Any]]] = [
        (OWN, None, {"temperature": 1.2, "seed": 5}),
        (TEXT, OBJECT, {"seed": 4}),
        (BOTH, OBJECT, {"temperature": 1.2, "seed": 7}),
        (SHORT, "(abc|d){2,4}e?", {"temperature": 0.8, "seed": 6}),
    ]
    requests = [
        made.fill_request(template, mode=mode, constraint=pattern and Regex(pattern), **sampling, **own)
        for template, pattern, sampling in asked
    ]
    together = made.engine().generate(requests)
    for request, (template, pattern, _), finish in zip(requests, asked, together, strict=True):
        check(template, finish, pattern)
        fixed = [token for part in request.template if not isinstance(part, Gap) for token in part]
        inside = [token for gap in finish.gaps for token in gap.tokens]
        whole = [*request.template[0], *finish.tokens]  # type: ignore[misc]
        behind = [] if isinstance(request.template[-1], Gap) else request.template[-1]
        assert sorted([*whole, *behind]) == sorted([*fixed, *inside])
    [alone] = made.engine().generate(requests[1:2])
    assert alone.gaps == together[1].gaps


def test_every_sampler_was_thought_of() -> None:
    assert {*WHOLE, *EITHER, *BLOCKS, "diffusion"} >= HELD


@pytest.mark.parametrize("mode", ["freedave", "ssd"])
def test_modes_that_cannot_say_why(letters: PreTrainedTokenizerFast, mode: str) -> None:
    with pytest.raises(OptionError, match=f"mode '{mode}' cannot hold its answer"):
        model("whole", letters).fill(OWN, mode=mode)


GROWING = Template(
    "ab",
    Gap(max_tokens=9, constraint=Regex("(a|b)*(c|d)(e|f)")),
    "abc",
    Gap(tokens=3, constraint=Regex("[abc]{3,9}")),
    "c",
    Gap(max_tokens=4),
    "d",
    Gap(max_tokens=12, constraint=Regex("(a|b){7,12}")),
)
IDS = {"expand_token_id": 30, "eos_token_id": EOS}


def growing(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Model:
    """Random weights behind DreamOn's sampler."""
    return Model("tiny", KernelDenoiser(random_network(seed), spec("dreamon", cache="none", shifted=True)), tokenizer)


@pytest.mark.parametrize("own", [{}, {"pad_eos_to_right": False, "min_gen_len": 1}, {"alg": "topk_margin"}])
def test_gaps_that_grow_and_shrink(letters: PreTrainedTokenizerFast, own: dict[str, Any]) -> None:
    """DreamOn: each is what was asked for, of several lengths, and its filling ends."""
    lengths = set()
    for seed in range(2):
        made = growing(letters, seed)
        request = made.fill_request(GROWING, temperature=(0.0, 2.0)[seed % 2], seed=seed, preset_options=IDS | own)
        [finish] = made.engine().generate([request])
        check(GROWING, finish)
        lengths |= {len(finish.gaps[0].tokens), len(finish.gaps[3].tokens)}
        assert finish.usage.total_passes < 120
    assert len(lengths) > 1


@pytest.mark.parametrize("template", [TEXT, BOTH])
def test_a_whole_text_whose_gaps_grow_and_shrink(letters: PreTrainedTokenizerFast, template: Template) -> None:
    """Also where gaps must be something by themselves; after more doublings than there is room, too."""
    for seed in range(4):
        made = growing(letters, seed)
        options: dict[str, Any] = {"temperature": (0.0, 2.0)[seed % 2], "seed": seed, "preset_options": IDS}
        [finish] = made.engine().generate([made.fill_request(template, constraint=Regex(OBJECT), **options)])
        check(template, finish, OBJECT)
        assert finish.usage.total_passes < 80


@pytest.mark.parametrize(
    ("template", "options", "own", "words"),
    [
        (TEXT, {"constraint": Regex("ab*")}, {}, "the text before the first gap does not fit it"),
        (BOTH, {"constraint": Regex(OBJECT.replace("cc", "dd"))}, {"expand_budget": 1}, "expand_budget=1 may leave"),
        (GROWING, {"steps": 9}, {}, "steps=9 may leave a gap incomplete"),
        (GROWING, {}, {"expand_budget": 3}, "expand_budget=3 may leave a gap incomplete"),
        (GROWING, {}, {"delete_eos_token": False}, "delete_eos_token=False may leave a gap incomplete"),
        (Template(Gap(max_tokens=2, constraint=Regex("[ab]{7}"))), {}, {}, "gap 1: the shortest text .* has 4 tokens"),
    ],
)
def test_gaps_that_cannot_grow(
    letters: PreTrainedTokenizerFast, template: Template, options: dict[str, Any], own: dict[str, Any], words: str
) -> None:
    """Before the first pass."""
    made = growing(letters)
    with pytest.raises(DllmError, match=words):
        made.engine().admit(made.fill_request(template, preset_options=IDS | own, **options))


def test_what_is_decided_takes_no_pass(letters: PreTrainedTokenizerFast) -> None:
    """Of a gap, and of all of a text; whatever may be chosen is left to the model."""
    made = model("diffusion", letters)
    found = made.fill(Template("a", Gap(max_tokens=9, constraint=Regex("abcabcabc")), "p", Gap(tokens=2), "p"))
    assert found.gaps[0] == "abcabcabc"
    assert found.usage.passes["prefill"] == 1
    assert found.usage.total_passes <= 3
    found = made.fill(Template("a", Gap(max_tokens=9, constraint=Regex("abcabcabc"))))
    assert (found.gaps, found.usage.total_passes) == (("abcabcabc",), 1)
    found = made.fill(Template("abc", Gap(max_tokens=4), "c"), constraint=Regex("abcabcabc"))
    assert (found.gaps, found.usage.total_passes) == (("abcab",), 1)


def test_a_gap_ends_where_what_follows_is_likeliest_among_the_ends_there_are(letters: PreTrainedTokenizerFast) -> None:
    """Also where nothing but the text behind it ends it."""
    made = model("diffusion", letters)
    for seed in range(6):
        template = Template("a", Gap(max_tokens=8, constraint=Regex("(aa|bb)*c{0,2}")), "mnopmnop")
        found = made.fill(template, temperature=1.5, seed=seed)
        assert re.fullmatch("(aa|bb)*c{0,2}", found.gaps[0])


def test_stop_strings_are_in_no_gap(letters: PreTrainedTokenizerFast) -> None:
    """A gap under a constraint is not cut: its texts have none of them."""
    for kind in ("whole", "blocks", "diffusion"):
        for seed in range(2):
            template = Template("a", Gap(max_tokens=6, constraint=Regex("[abc]{2,9}")), "d", Gap(max_tokens=3))
            found = model(kind, letters).fill(template, stop="ab", temperature=1.5, seed=seed)
            assert re.fullmatch("[abc]{2,9}", found.gaps[0])
            assert "ab" not in found.gaps[0]


def test_the_text_behind_ends_a_gap_only_where_the_language_does(letters: PreTrainedTokenizerFast) -> None:
    """What follows may belong to the gap."""
    made = model("whole", letters)
    template = Template("a", Gap(max_tokens=9, constraint=Regex("(abcabcd)+c")), "abcabcd")
    assert made.fill(template, mode="llada").gaps[0] in ("abcabcdc", "abcabcdabcabcdc")
    template = Template("a", Gap(max_tokens=9, constraint=Regex("b|babcabcd")), "abcabcd")
    found = made.fill(template, mode="llada")
    assert found.gaps == ("b",)


@pytest.mark.parametrize(
    ("template", "options", "error", "words"),
    [
        (
            BOTH,
            {"constraint": Regex(OBJECT.replace("bb|cc", "ab"))},
            RequestError,
            "the text behind gap 1 does not fit it",
        ),
        (
            Template("a", Gap(max_tokens=2, constraint=Regex("b"))),
            {"constraint": Regex("a*")},
            OptionError,
            "no text fulfils it together with what the gaps must be; mend it",
        ),
        (TEXT, {"constraint": Regex("a"), "stop": "b"}, OptionError, "says of the whole text how it goes on"),
        (TEXT, {"constraint": Regex("[^\\s\\S]")}, OptionError, "no text fulfils it"),
        (TEXT, {"constraint": Regex("ab")}, RequestError, "the text before the first gap does not fit it"),
        (TEXT, {"constraint": Regex(r'\{"a":"a*","c[ab]*')}, RequestError, "the text behind gap 1 does not fit it"),
        (SHORT, {"constraint": Regex("abc(ab){9}abc")}, RequestError, "the gaps have too little room"),
        (
            Template("a", Gap(tokens=2), "b", Gap(max_tokens=2, constraint=Regex("abcabcabc")), "d"),
            {},
            RequestError,
            "gap 2: the shortest text that fulfils its constraint has 3 tokens, but the gap has 2 at most; give it "
            "max_tokens=3 or more",
        ),
        (
            Template("a", Gap(tokens=4, constraint=Regex("ab|cdefgh"))),
            {},
            RequestError,
            "gap 1: no text of exactly 4 tokens fulfils its constraint; make it 2 or 6 tokens long",
        ),
        (Template("a", Gap(max_tokens=4, constraint=Regex("é"))), {}, OptionError, "gap 1: no text fulfils"),
        (
            Template("a", Gap(max_tokens=4, constraint=Regex("a+b"))),
            {"stop": "b"},
            OptionError,
            "without the stop strings ['b']",
        ),
        (Template("a", Gap(max_tokens=4, constraint=Regex("("))), {}, OptionError, "no regular expression"),
    ],
)
def test_what_cannot_be_fulfilled_is_refused_before_the_first_pass(
    letters: PreTrainedTokenizerFast, template: Template, options: dict[str, Any], error: type[DllmError], words: str
) -> None:
    """Naming the gap, its shortest text, and what to change."""
    made = model("whole", letters)
    with pytest.raises(error, match=re.escape(words)):
        made.engine().admit(made.fill_request(template, **options))


def test_what_is_no_constraint() -> None:
    with pytest.raises(RequestError, match="give a Regex, a JsonSchema or a Grammar"):
        Gap(tokens=3, constraint="abc")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["llada", "mdlm"])
def test_suppressed_tokens_belong_to_the_constraint(letters: PreTrainedTokenizerFast, mode: str) -> None:
    """What they leave is written; where they leave nothing, that is said before the first pass."""
    made, never = model("whole", letters), letters.convert_tokens_to_ids(["c", "abc"])
    for seed in range(4):
        config = SamplingConfig(
            mode=mode, constraint=Regex("[abc]{3,9}"), max_new_tokens=6, temperature=1.5, seed=seed,
            preset_options={"suppress_tokens": never},
        )  # fmt: skip
        [finish] = made.engine().generate([Request([3], config)])
        assert re.fullmatch("[ab]{3,9}", finish.text)
    with pytest.raises(OptionError, match="no text fulfils it"):
        made.engine().admit(Request([3], config.with_options(constraint=Regex("abc"))))
    config = config.with_options(constraint=Regex("a+"), preset_options={"suppress_tokens": [EOS]})
    [finish] = made.engine().generate([Request([3], config)])
    assert (len(finish.tokens), set(finish.text)) == (6, {"a"})
    with pytest.raises(RequestError, match=r"no text of exactly 6 tokens .* suppress_tokens forbids what ends"):
        made.engine().admit(Request([3], config.with_options(constraint=Regex("b{2}"))))


def test_a_suffix_leaves_the_answer_to_the_constraint(letters: PreTrainedTokenizerFast) -> None:
    """A request without a template, which has text behind its answer."""
    for kind, mode in (("whole", "llada"), ("blocks", "sdar"), ("diffusion", "diffusion")):
        for seed in range(3):
            config = SamplingConfig(
                mode=mode, constraint=Regex("(ab)+c|ccc"), max_new_tokens=5, temperature=1.5, seed=seed
            )
            request = Request([3, 4], config, suffix=[7, 8, 9, 10, 11])
            [finish] = model(kind, letters).engine().generate([request])
            assert re.fullmatch("(ab)+c|ccc", finish.text)


def test_filled_texts_are_looked_at_once_more(
    letters: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a validator that knows nothing of automata: gaps by themselves, and the whole text."""
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(gap_texts, "check_answer", lambda *given: told.append(given))
    made, schema = model("whole", letters), JsonSchema({"type": "string", "enum": ["abc"]})
    made.fill(Template("a", Gap(max_tokens=6, constraint=schema), "b", Gap(tokens=1)))
    assert told[0] == ('"abc"', schema, "eos")
    made.fill(Template('"', Gap(max_tokens=6), "c", Gap(max_tokens=2)), constraint=schema)
    assert told[-1] == ('"abc"', schema, "length")
