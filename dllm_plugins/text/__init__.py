"""Text in and out: prompts and chat templates to ids, ids to text that can be cut and streamed."""
