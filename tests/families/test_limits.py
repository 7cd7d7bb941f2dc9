"""Numbers of a config: absurd ones are refused by name, those of real checkpoints are not."""

from typing import Any

import pytest

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.limits import check_numbers


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers='2'"),
        ({"hidden_size": [64]}, r"hidden_size=\[64\]"),
        ({"vocab_size": True}, "vocab_size=True"),
        ({"num_attention_heads": -4}, "num_attention_heads=-4"),
        ({"head_dim": 16.5}, "head_dim=16.5"),
        ({"num_labels": 10**9}, "num_labels=1000000000"),
        ({"block_size": 10**9}, "block_size=1000000000"),
        ({"text_config": {"max_position_embeddings": 10**15}}, "text_config.max_position_embeddings="),
        ({"a": [{"num_experts": {}}]}, r"a.0.num_experts=\{\}"),
        ({"anything": 10**30}, "anything=1000"),
        ({"anything": 10**300}, "anything=a number of 301 digits"),
        ({"rope_theta": float("inf")}, "rope_theta=inf"),
        ({"rope_theta": 0}, "rope_theta=0"),
        ({"partial_rotary_factor": 2}, "partial_rotary_factor=2"),
        ({"rope_parameters": {"rope_theta": -1e4}}, "rope_parameters.rope_theta=-10000.0"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps=-1e-05"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5'"),
        ({"rope": {"factor": float("nan")}}, "rope.factor=nan"),
    ],
)
def test_absurd_numbers(config: dict[str, Any], said: str) -> None:
    """Wherever they are; the message says where."""
    with pytest.raises(CheckpointError, match=f"config.json says {said}"):
        check_numbers(config, "config.json")


def test_numbers_that_exist() -> None:
    """Of published configs."""
    check_numbers(
        {
            "max_position_embeddings": 10_485_760,
            "vocab_size": 262_144,
            "num_experts": 384,
            "num_hidden_layers": 126,
            "head_dim": None,
            "sliding_window": -1,
            "pad_token_id": -1,
            "rope_theta": 1e11,
            "partial_rotary_factor": 0.5,
            "moe_layer_freq": [1] * 61,
            "eos_token_id": [1, 106],
            "mlp_ratio": 4.0,
            "tie_word_embeddings": True,
        },
        "config.json",
    )


def test_false_says_that_there_is_no_window() -> None:
    """RND1's configs say so; of other sizes it says nothing."""
    check_numbers({"sliding_window": False, "hidden_size": 64}, "config.json")
    with pytest.raises(CheckpointError, match="hidden_size=False"):
        check_numbers({"hidden_size": False}, "config.json")
