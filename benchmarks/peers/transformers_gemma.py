"""transformers' own DiffusionGemma `generate` beside ours, over one random checkpoint.

The reference always samples, from torch's global generator. Ours is handed the same draws
in the same order, so the tokens can be compared one by one. It keeps the encoder's cache,
as ours does, and its default cache is the one that it runs without a compiler.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DiffusionGemmaConfig
from transformers import DiffusionGemmaForBlockDiffusion

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.conformance.replay import Regenerated
from dllm_plugins.conformance.replay import Replay
from peers import models
from peers.peer import Contest
from peers.peer import Decoded
from peers.peer import Peer
from peers.peer import Setup
from peers.peer import Skip
from peers.peer import prompt_ids

#: Passes a canvas gets at most, the reference's default; and the seed of the draws.
STEPS, SEED = 48, 0
#: Ids of pictures, of which there are none: the last three of the vocabulary.
PICTURES = 3
NOTE = "theirs encodes the prompt and each finished canvas in a pass of its own, ours in the pass that follows"


@dataclass(frozen=True, slots=True)
class Gemma:
    """The size of a checkpoint; every sixth layer sees everything, the others a window."""

    vocabulary: int = models.SHAPE.vocabulary
    width: int = models.SHAPE.width
    heads: int = models.SHAPE.heads
    kv_heads: int = models.SHAPE.kv_heads
    layers: int = 12
    experts: int = 32
    chosen: int = 4
    inner: int = 96
    dense: int = models.SHAPE.inner
    window: int = 512
    canvas: int = 64


def gemma_folder(folder: Path, size: Gemma) -> Path:
    """A random checkpoint in the class's own format, with a picture encoder that nothing uses."""
    head = size.width // size.heads
    text = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.dense,
        "moe_intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": head,
        "global_head_dim": 2 * head,
        "num_experts": size.experts,
        "top_k_experts": size.chosen,
        "sliding_window": size.window,
        "max_position_embeddings": models.CONTEXT,
        "bos_token_id": models.BOS,
        "eos_token_id": None,
        "pad_token_id": models.PAD,
    }
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    sight |= {"num_key_value_heads": 1, "head_dim": 16, "position_embedding_size": 8}
    names = ("image_token_id", "boi_token_id", "eoi_token_id")
    ids: dict[str, Any] = {name: size.vocabulary - PICTURES + number for number, name in enumerate(names)}
    config = DiffusionGemmaConfig(text_config=text, vision_config=sight, canvas_length=size.canvas, **ids)
    model = DiffusionGemmaForBlockDiffusion(config)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5, generator=generator)
    model.save_pretrained(folder)
    return folder


class Theirs:
    """Their side: `generate` from a seed, with its passes counted.

    :param canvas: positions a decoder pass forwards.
    """

    def __init__(self, model: Any, prompt: list[int], new: int, canvas: int) -> None:
        self.model = model
        self.prompt = torch.tensor([prompt])
        self.new = new
        self.canvas = canvas
        self._rows: list[int] = []
        for part, name in ((model.model.encoder, "input_ids"), (model.model.decoder, "decoder_input_ids")):
            part.register_forward_pre_hook(self._counter(name), with_kwargs=True)

    def _counter(self, name: str) -> Any:
        def count(_module: torch.nn.Module, _given: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._rows.append(named[name].numel())

        return count

    def __call__(self) -> Decoded:
        """The new tokens; encoder and decoder passes both count."""
        self._rows.clear()
        torch.manual_seed(SEED)
        found = self.model.generate(self.prompt, max_new_tokens=self.new, max_denoising_steps=STEPS).sequences[0]
        return Decoded(tuple(found[self.prompt.shape[1] :].tolist()), len(self._rows), sum(self._rows))


def replayed(model: Model, prompt: list[int], new: int, canvas: int) -> Decoded:
    """Our side, with the draws that their seed gives."""
    noise = Replay(Regenerated(SEED, 1, canvas), 0, len(prompt), canvas)
    config = SamplingConfig(mode="diffusion_gemma", max_new_tokens=new, steps=STEPS)
    finish = model.engine().generate([Request(prompt, config, stop_ids=frozenset(), noise=noise)])[0]
    return Decoded(finish.tokens, finish.usage.total_passes, finish.usage.rows)


def gemma(setup: Setup, size: Gemma = Gemma()) -> Contest:
    """Both sides on transformers' class, each with a copy of its own.

    :raises Skip: if the answer does not fill whole canvases, all that the reference can fill.
    """
    if setup.size.new % size.canvas:
        raise Skip(f"size {setup.size} does not fill canvases of {size.canvas}; ask for a multiple of it")
    gemma_folder(setup.folder, size)
    ours = load_model(str(setup.folder), dtype=setup.dtype_name, device="cpu")
    theirs = DiffusionGemmaForBlockDiffusion.from_pretrained(
        setup.folder, dtype=setup.dtype, trust_remote_code=False
    ).eval()
    prompt = prompt_ids(setup.size.prompt, size.vocabulary - PICTURES)
    return Contest(
        ours=lambda: replayed(ours, prompt, setup.size.new, size.canvas),
        theirs=Theirs(theirs, prompt, setup.size.new, size.canvas),
        weights=sum(weight.numel() for weight in theirs.parameters()),
        setting=f"canvases of {size.canvas}, {STEPS} passes at most, entropy bound 0.1, the same draws",
        note=NOTE,
    )


PEERS = (Peer("transformers_diffusion_gemma", None, gemma),)
