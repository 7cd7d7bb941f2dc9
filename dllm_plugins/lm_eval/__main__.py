"""`python -m dllm_plugins.lm_eval`: the command `lm_eval` as it is, with the model `dllm` registered."""

import sys

from dllm_plugins.errors import DllmError
from dllm_plugins.libraries.extras import need


def main() -> None:
    """Register and hand over; an error of ours ends it with one line."""
    try:
        need("lm_eval", "evaluation by lm-evaluation-harness")
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry

        model_registry.register("dllm", target="dllm_plugins.lm_eval.model:DiffusionLM")
        cli_evaluate()
    except DllmError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
