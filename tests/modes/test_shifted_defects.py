"""What Dream's, Open-dCoder's and RND1's samplers do where their references do not, or in their own way."""

from itertools import pairwise
from typing import Any

import torch

from dllm_plugins.modes.rnd1 import truncated

from .shifted import EOS
from .shifted import MASK
from .shifted import PAD
from .shifted import canvases
from .shifted import generate
from .shifted import load
from .shifted import request


def test_p2_takes_tokens_back() -> None:
    """A filled position is open again in a later pass, and nothing is final before the end."""
    found = canvases(load("open_dcoder"), request("p2", [5, 6, 7], max_new_tokens=24, steps=12))
    back = [a for a, b in pairwise(found) if any(x is not None and y is None for x, y in zip(a, b, strict=True))]
    assert back
    assert [canvas.count(None) for canvas in found] == [24 - 2 * step for step in range(1, 13)]


def test_dream_rows_keep_their_own_count() -> None:
    """The reference's count is the batch's mean: a row with fewer open positions loses real tokens."""
    prompts = [[5, 6, 7, 8, 9], [5, MASK, MASK, MASK, 9]]
    opened = torch.tensor([[token == MASK for token in prompt] for prompt in prompts])
    opened[0, -1] = True
    confidence = torch.zeros(2, 5).masked_fill(~opened, -torch.inf)
    picked = torch.topk(confidence, int(opened.sum() / 2)).indices
    assert confidence.gather(1, picked).min() == -torch.inf

    model = load("dream")
    requests = [request("dream", prompt, max_new_tokens=2, steps=3) for prompt in prompts]
    together = generate(model, *requests)
    assert [finish.tokens for finish in together] == [generate(model, asked)[0].tokens for asked in requests]
    assert len(together[0].tokens) == 2
    assert (together[1].tokens[3], len(together[1].tokens)) == (9, 6)


def test_open_dcoder_rows_see_no_padding() -> None:
    """The reference forwards padding as text, which changes the row; ours is as it is alone."""
    model = load("open_dcoder")
    network: Any = model.denoiser
    prompt, new = [5, 6, 7], 4
    full = torch.zeros(1, 1, 9, 9)
    with torch.inference_mode():
        padded = network.model(input_ids=torch.tensor([[PAD, PAD, *prompt, *[MASK] * new]]), attention_mask=full)
        alone = network.model(input_ids=torch.tensor([[*prompt, *[MASK] * new]]), attention_mask=full[..., 2:, 2:])
    assert (padded.logits[0, 2:] - alone.logits[0]).abs().max() > 0.1

    short, long = (request("p2", tokens, max_new_tokens=8) for tokens in (prompt, [PAD, 9, *prompt]))
    assert generate(model, short, long)[0].tokens == generate(model, short)[0].tokens


def test_rnd1_entropies_stay_numbers() -> None:
    """The reference multiplies 0 by minus infinity once top_k cuts something off; ours orders by what is left."""
    model = load("rnd1")
    canvas = [5, 6, *[MASK] * 8, PAD]
    network: Any = model.denoiser
    with torch.inference_mode():
        seen = network.model(input_ids=torch.tensor([canvas]), attention_mask=torch.zeros(1, 1, 11, 11)).logits
    logarithm = torch.log_softmax(truncated(seen[0, 1:9], 2, None), dim=-1)
    assert bool((logarithm.exp() * logarithm).sum(-1).isnan().all())
    best = torch.topk(seen[0, 1:9], 2, dim=-1).values.softmax(-1)
    surest = int(torch.special.entr(best).sum(-1).argmin())

    first = canvases(model, request("rnd1", [5, 6], max_new_tokens=8, top_k=2))[0]
    assert [position for position, token in enumerate(first[:8]) if token is not None] == [surest]
    bound = request("rnd1", [5, 6], max_new_tokens=8, top_k=2, own={"eb_gamma": 1e9})
    assert generate(model, bound)[0].usage.total_passes == 1


def test_rnd1_temperature_acts_on_order_alone_if_greedy() -> None:
    """One pass draws the same tokens; the order of several differs."""
    model = load("rnd1")
    plain = request("rnd1", [5, 6, 7], max_new_tokens=12)
    hot = request("rnd1", [5, 6, 7], max_new_tokens=12, temperature=3.0, own={"greedy": True})
    one = [generate(model, request("rnd1", [5, 6, 7], max_new_tokens=12, steps=1, temperature=t, own=own))[0].tokens
           for t, own in ((0.0, {}), (3.0, {"greedy": True}))]  # fmt: skip
    assert one[0] == one[1]
    assert canvases(model, plain) != canvases(model, hot)


def test_rnd1_keeps_a_position_behind_the_sequence() -> None:
    """Padding, or the end of text if asked for; the model sees it."""
    model = load("rnd1")
    found = {
        name: generate(model, request("rnd1", [5, 6], (7,), max_new_tokens=8, own=own))[0]
        for name, own in {
            "pad": {},
            "eos": {"add_eos_at_end": True},
            "none": {"padding": 0},
            "three": {"padding": 3, "pad_token_id": 3, "add_eos_at_end": True, "eos_token_id": 4},
        }.items()
    }
    assert [found[name].rest for name in ("pad", "eos", "none", "three")] == [(7, PAD), (7, EOS), (7,), (7, 3, 3, 4)]
    assert all(len(finish.tokens) == 8 for finish in found.values())
    assert len({finish.tokens for finish in found.values()}) > 1
