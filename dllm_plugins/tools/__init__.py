"""Functions that a model may call: what prompts say of them, how calls are written, and how they are read."""
