"""The Hugging Face adapter: `model.generate(**inputs, custom_generate=block_diffusion)`."""

from dllm_transformers.strategy import block_diffusion

__all__ = ["block_diffusion"]
