"""A DiffusionGemma without a checkpoint: random weights, two layers, one of them with a window."""

from pathlib import Path
from typing import Any

import torch
from transformers import DiffusionGemmaConfig
from transformers import DiffusionGemmaForBlockDiffusion

LENGTH, VOCABULARY, WINDOW = 6, 64, 8


def save_gemma(folder: Path) -> None:
    """In the hub's format; the window is shorter than the prompts."""
    torch.manual_seed(0)
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "per_layer_config": {},
        "max_position_embeddings": 128,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 16,
        "eos_token_id": 2,
    }
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"num_key_value_heads": 1, "head_dim": 16, "position_embedding_size": 8}
    ids: dict[str, Any] = {"image_token_id": 60, "boi_token_id": 61, "eoi_token_id": 62}
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=LENGTH, **ids)
    model = DiffusionGemmaForBlockDiffusion(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
