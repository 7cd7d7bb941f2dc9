"""A diffusion language model as lm-evaluation-harness asks one: answers, and how likely given texts are."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows
from lm_eval.utils import make_disjoint_window
from tqdm import tqdm

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.errors import RequestError
from dllm_plugins.likelihood.scoring import Sampling
from dllm_plugins.likelihood.scoring import log_likelihood
from dllm_plugins.likelihood.scoring import way_of
from dllm_plugins.lm_eval.options import Arguments
from dllm_plugins.lm_eval.options import config_of
from dllm_plugins.models import load_model
from dllm_plugins.request import Request

#: Texts as the harness hands them over, with their ids: context and continuation.
Pair = tuple[tuple[str, str], list[int], list[int]]


class DiffusionLM(TemplateLM):  # type: ignore[misc]
    """The model `dllm`; arguments as in :class:`~dllm_plugins.lm_eval.options.Arguments`.

    :raises DllmError: for arguments that do not fit, and for a model that cannot be loaded.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = Arguments.of(arguments)
        self.model = load_model(self.arguments.pretrained, **self.arguments.loading)
        self.tokenizer = self.model.tokenizer
        self.max_length = min(self.model.context, self.arguments.max_length or self.model.context)
        decoding = self.arguments.decoding
        self._seed = decoding.get("seed") or 0
        self._sampling = Sampling(
            self.arguments.samples, self._seed, self.arguments.together, decoding.get("block_length")
        )
        self._engine = self.model.engine()

    @property
    def eot_token_id(self) -> int:
        """The end of text.

        :raises RequestError: if the model has none.
        """
        spec = self.model.denoiser.spec
        found = self.tokenizer.eos_token_id if spec.eos_id is None else spec.eos_id
        if found is None:
            raise RequestError(f"{self.model.name} names no end of text, which an empty context needs")
        return int(found)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context: what begins texts, else what ends them."""
        found = self.tokenizer.bos_token_id
        return self.eot_token_id if found is None else int(found)

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells kept requests apart."""
        return self.model.name.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as the text that the model goes on from.

        :raises RequestError: if it has no chat template.
        """
        if not self.model.chats:
            raise RequestError(f"{self.model.name} has no chat template; leave --apply_chat_template out")
        found: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return found

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_kwargs: Any) -> list[int]:
        """Ids of a text, control tokens in it included, as for every model of the harness.

        What the tokenizer puts before texts is there once, also before a chat that begins with it.
        """
        if add_special_tokens is None:
            begins = self.tokenizer.special_tokens_map.get("bos_token")
            add_special_tokens = not (begins and string.startswith(str(begins)))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, so many at a time as `--batch_size` says; stop strings end the work, not only the text.

        The same request again, as for pass@k, has the next seed.

        :raises DllmError: for a prompt or an option that does not fit, before anything is decoded.
        """
        times: Counter[str] = Counter()
        asked: list[Request] = []
        for context, options in (request.args for request in requests):
            config = config_of(self.arguments, options)
            key = repr((context, options))
            config = config.with_options(seed=(self._seed + times[key]) % (LARGEST_SEED + 1))
            times[key] += 1
            ids = self._fitting(self.tok_encode(context), config.max_new_tokens, least=1)
            asked.append(Request(ids, config))
        found: list[str] = []
        together = self.arguments.together
        for start in tqdm(range(0, len(asked), together), desc="Generating", disable=disable_tqdm):
            part = slice(start, start + together)
            for request, finish in zip(requests[part], self._engine.generate(asked[part]), strict=True):
                self.cache_hook.add_partial("generate_until", request.args, finish.text)
                found.append(finish.text)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, longer ones in windows of the context, as the harness's own models do.

        :raises OptionError: for a model that says nothing of texts.
        """
        found = []
        for request in tqdm(requests, desc="Likelihood of texts", disable=disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, self.max_length - 1, 1
            )
            total = sum(self._score(*make_disjoint_window(window))[0] for window in windows)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            found.append(total)
        return found

    def _loglikelihood_tokens(
        self, requests: list[Pair], disable_tqdm: bool = False, **_kwargs: Any
    ) -> list[tuple[float, bool]]:
        """See :func:`~dllm_plugins.likelihood.scoring.log_likelihood`."""
        way_of(self.model.denoiser.spec)
        pairs = [
            (self._fitting(context, len(target), least=len(target)), target) for _texts, context, target in requests
        ]
        found = []
        for (texts, *_ids), pair in zip(requests, tqdm(pairs, desc="Likelihoods", disable=disable_tqdm), strict=True):
            found.append(self._score(*pair))
            self.cache_hook.add_partial("loglikelihood", texts, found[-1])
        return found

    def _score(self, context: Sequence[int], target: Sequence[int]) -> tuple[float, bool]:
        scored = log_likelihood(self.model.denoiser, context, target, self._sampling)
        return scored.logprob, scored.greedy

    def _fitting(self, ids: list[int], behind: int, least: int) -> list[int]:
        """A prompt that leaves room for what stands behind it.

        :param behind: tokens that may stand there; the answer ends early where they do not fit, and is not cut for it
            unless `truncate` says so.
        :param least: tokens that must fit.
        :raises RequestError: for one that is too long.
        """
        if self.arguments.truncate:
            return ids[-max(self.max_length - behind, 1) :]
        if len(ids) + least > self.max_length:
            raise RequestError(
                f"a prompt has {len(ids)} tokens, and {self.model.name} holds {self.max_length} with its answer; lower "
                f"--num_fewshot, or cut its beginning off by --model_args truncate=true"
            )
        return ids
