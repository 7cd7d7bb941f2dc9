"""Two models under one name: a diffusion model drafts, an autoregressive one verifies and says what the text is."""
