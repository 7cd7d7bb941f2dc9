"""A trace made by hand, with texts that would be HTML if anybody took them for it."""

from dllm_plugins.traces import Cell
from dllm_plugins.traces import Frame
from dllm_plugins.traces import Trace

#: What a page must show and never obey.
NASTY = '</script><script>document.title="taken"</script><img src="https://example.org/x" onerror="document.title=1">'
MARKUP = "<b>&amp;</b>\u2028"

FIRST = Cell("a\n", "final", 0.5, 1)
TRACE = Trace(
    ({"role": "system", "content": MARKUP}, {"role": "user", "content": NASTY}),
    "a <model>",
    (
        Frame(1, (FIRST, Cell(MARKUP, "guess", 0.25), Cell(), Cell())),
        Frame(2, (FIRST, Cell("b", "committed", 0.75, 2), Cell(), Cell(NASTY, "committed", 1, 2))),
        Frame(3, (FIRST, Cell(MARKUP, "final", 0.0, 3), Cell("</s>", "final", None, 3, True))),
    ),
)

_BEGIN = (Cell("x ", "fixed"), Cell("a", "final", None, 1), Cell(" y", "fixed"))
#: Of a template with two gaps, the second of which ends early.
FILLED = Trace(
    (),
    "a model",
    (
        Frame(1, (*_BEGIN, Cell(), Cell("c", "committed", 1, 1))),
        Frame(2, (*_BEGIN, Cell("b", "final", None, 2))),
    ),
)
