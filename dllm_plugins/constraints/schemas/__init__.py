"""JSON schemas as trees of regular languages; :func:`~dllm_plugins.constraints.json_schema.tree_of` is the door."""
