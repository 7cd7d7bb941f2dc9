"""`pipeline("fill-mask")` for diffusion checkpoints: candidates for every mask of a text, from one pass over it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import FillMaskPipeline

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_transformers.diffusion_model import DiffusionModelForCausalLM
from dllm_transformers.modeling import TriModeForCausalLM
from dllm_transformers.weights import shared_model_of

#: What a mask is called in texts where the checkpoint gives it no name.
_MASK = "<|mask|>"


class DiffusionFillMask(FillMaskPipeline):
    """What `pipeline("fill-mask", ...)` makes once `dllm_transformers` is imported.

    Of a diffusion checkpoint every candidate's score is what the model says at its mask while all masks are
    open, as of any masked language model; the mask itself is none. `generate` fills several masks one knowing
    the other. So does a tri-mode checkpoint here: its clean rows see nothing behind them, and `generate` weighs
    what they say by what its denoiser makes of the rest.
    """

    def __init__(self, model: Any, tokenizer: Any = None, **given: Any) -> None:
        ours = isinstance(model, DiffusionModelForCausalLM | TriModeForCausalLM)
        if ours and getattr(tokenizer, "mask_token_id", 0) is None:
            # Many families name their mask in config.json only, and texts have to name it, too.
            tokenizer = copy.deepcopy(tokenizer)
            named = isinstance(model, DiffusionModelForCausalLM)
            name = tokenizer.convert_ids_to_tokens(model.spec.mask_id) if named else _MASK
            tokenizer.add_special_tokens({"mask_token": name})
        super().__init__(model=model, tokenizer=tokenizer, **given)

    def _sanitize_parameters(self, *given: Any, constraint: Any = None, **options: Any) -> Any:
        """As in transformers.

        :raises OptionError: for a constraint, which is about texts of several tokens.
        """
        if constraint is not None:
            raise OptionError(
                f"constraint={shown(constraint)} has no meaning in a fill-mask pipeline, which says of every mask by "
                f"itself what one pass says there; give targets=[...], or use model.generate(), which holds gaps to it"
            )
        # transformers does not type this function.
        return super()._sanitize_parameters(*given, **options)  # type: ignore[no-untyped-call]

    def _forward(self, model_inputs: Any) -> Any:  # type: ignore[override]
        if isinstance(self.model, TriModeForCausalLM):
            return self._weighed(model_inputs)
        forward: Callable[[Any], Any] = super()._forward
        if not isinstance(self.model, DiffusionModelForCausalLM):
            return forward(model_inputs)
        known = {name: model_inputs[name] for name in ("input_ids", "attention_mask") if name in model_inputs}
        found, spec = forward(known), self.model.spec
        logits = found["logits"]
        if spec.shifted:
            # The row at p - 1 predicts position p.
            logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
        if spec.mask_id < logits.shape[-1]:
            logits = logits.index_fill(-1, torch.tensor([spec.mask_id], device=logits.device), -torch.inf)
        found["logits"] = logits
        return found

    def _weighed(self, model_inputs: Any) -> dict[str, Any]:
        """What a tri-mode model says at each mask, with what follows in view."""
        ids, tokenizer = model_inputs["input_ids"], self.tokenizer
        assert tokenizer is not None, "the pipeline has read a text"
        mask = shared_model_of(self.model, None).model.denoiser.spec.mask_id
        asked = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        # The mask is no id of this tokenizer's vocabulary, whatever number it was given here.
        prompt = ids.masked_fill(ids == tokenizer.mask_token_id, mask)
        model: Any = self.model
        said = model.generate(prompt, attention_mask=model_inputs.get("attention_mask"), **asked)
        found = torch.stack(said.logits, dim=1)
        before = found.new_zeros(len(ids), ids.shape[1] - found.shape[1], found.shape[2])
        return {"logits": torch.cat([before, found], dim=1), "input_ids": ids}
