"""What every pass left on the canvas, kept while an answer is decoded, and as one page that replays it."""

from dllm_plugins.traces.page import page
from dllm_plugins.traces.recorder import Cell
from dllm_plugins.traces.recorder import Frame
from dllm_plugins.traces.recorder import Recorder
from dllm_plugins.traces.recorder import Trace

__all__ = ["Cell", "Frame", "Recorder", "Trace", "page"]
