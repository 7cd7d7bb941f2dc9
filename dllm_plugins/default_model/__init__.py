"""The default model: SmolLM2-135M-Instruct with a denoiser of its own, on every backend."""
