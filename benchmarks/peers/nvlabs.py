"""NVlabs/Fast-dLLM v1 (read at 24cc59e): `generate` without cache, with prefix and with dual cache.

Its LLaDA lives in the checkout's folder `llada`, whose modules are called `generate` and
`model`; they are imported from there and forgotten again. einops, which it imports for a
kind of block that LLaDA does not have, need not be installed.
"""

import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from peers.loading import Cache
from peers.loading import fast_dllm
from peers.loading import filled
from peers.loading import llada_config
from peers.models import BLOCK
from peers.models import MASK
from peers.models import llada_folder
from peers.peer import Contest
from peers.peer import Peer
from peers.peer import Setup
from peers.peer import Skip
from peers.peer import prompt_ids
from peers.peer import sampled
from peers.peer import weights_of

GENERATE = {None: "generate", "prefix": "generate_with_prefix_cache", "dual": "generate_with_dual_cache"}
NOTE = (
    "theirs computes logits of every row it forwards and a float64 softmax over all of them, ours of open positions; "
    "it turns the keys of the whole prefix again in every pass"
)


def module(setup: Setup, name: str) -> Any:
    """A module of the checkout's folder `llada`.

    :raises Skip: if the checkout does not hold it, or it does not load here.
    """
    assert setup.checkout is not None
    place = setup.checkout / "llada"
    if not (place / "generate.py").is_file():
        raise Skip(f"{place / 'generate.py'} does not exist; give the top folder of a checkout of NVlabs/Fast-dLLM v1")
    if "einops" not in sys.modules and find_spec("einops") is None:
        unused: Any = ModuleType("einops")
        unused.rearrange = None
        sys.modules["einops"] = unused
    sys.path.insert(0, str(place))
    try:
        return import_module(name)
    except ImportError as error:
        raise Skip(f"{name} of {place} does not load: {error}") from error
    finally:
        sys.path.remove(str(place))


def build(cache: Cache | None, setup: Setup) -> Contest:
    """Two positions a pass, the likeliest of a block of 32 first.

    :raises Skip: see :func:`module`.
    """
    if setup.size.new % BLOCK:
        raise Skip(f"{setup.size.new} new tokens are not whole blocks of {BLOCK}, which it asks for")
    generate = getattr(module(setup, "generate"), GENERATE[cache])
    llada_folder(setup.folder)
    config = llada_config(module(setup, "model.configuration_llada").LLaDAConfig, setup.folder)
    theirs = filled(module(setup, "model.modeling_llada").LLaDAModelLM(config), setup)
    prompt = prompt_ids(setup.size.prompt, MASK)
    given = torch.tensor([prompt])
    options = {
        "steps": setup.size.steps,
        "gen_length": setup.size.new,
        "block_length": BLOCK,
        "temperature": 0.0,
        "mask_id": MASK,
    }
    return Contest(
        ours=fast_dllm(setup, prompt, cache),
        theirs=sampled(theirs, lambda: generate(theirs, given, **options)[0], len(prompt)),
        weights=weights_of(theirs),
        setting=f"blocks of {BLOCK}, {setup.size.steps} passes, cache {cache}, greedy, low confidence",
        note=NOTE,
    )


PEERS = (
    Peer("nvlabs_none", "nvlabs", partial(build, None)),
    Peer("nvlabs_prefix", "nvlabs", partial(build, "prefix")),
    Peer("nvlabs_dual", "nvlabs", partial(build, "dual")),
)
