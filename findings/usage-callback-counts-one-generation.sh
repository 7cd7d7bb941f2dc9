#!/usr/bin/env bash
# langchain-core 1.8.3: get_usage_metadata_callback (and UsageMetadataCallbackHandler) adds up the usage of prompts, but
# of the generations of one prompt it reads the first alone. Where every generation carries the tokens that it took
# itself, three answers to one prompt are booked as one; which number is booked depends on the order of the answers.
# Two prompts with one answer each are counted in full.
# Guessed: the sum of what all messages say in usage_metadata.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check langchain-core==1.8.3
cat > "$work/show.py" <<'PYTHON'
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult


def answer(tokens):
    usage = {"input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}
    message = AIMessage("word " * tokens, usage_metadata=usage, response_metadata={"model_name": "own"})
    return ChatGeneration(message=message)


class Own(BaseChatModel):
    sizes: list[int]

    @property
    def _llm_type(self):
        return "own"

    def _generate(self, messages, stop=None, run_manager=None, **options):
        return ChatResult(generations=[answer(size) for size in self.sizes])


for prompts, sizes in ((1, [1, 10, 100]), (1, [100, 10, 1]), (2, [10])):
    with get_usage_metadata_callback() as callback:
        result = Own(sizes=sizes).generate([[HumanMessage("Hi")]] * prompts)
    said = sum(one.message.usage_metadata["output_tokens"] for several in result.generations for one in several)
    counted = callback.usage_metadata["own"]["output_tokens"]
    print(f"prompts: {prompts}, answers to each: {sizes}, tokens in the messages: {said}, counted: {counted}")
PYTHON
"$work/venv/bin/python" "$work/show.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN' || { echo "changed since langchain-core 1.8.3"; exit 1; }
prompts: 1, answers to each: [1, 10, 100], tokens in the messages: 111, counted: 1
prompts: 1, answers to each: [100, 10, 1], tokens in the messages: 111, counted: 100
prompts: 2, answers to each: [10], tokens in the messages: 20, counted: 20
SEEN
