"""The engine: rows are admitted, forwarded together, answered, and told about."""

from dllm_plugins.engine.engine import Engine as Engine
