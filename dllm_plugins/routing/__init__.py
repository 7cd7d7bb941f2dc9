"""Which mode answers a request that asks for mode `auto`.

What changes the text is decided by rules, from the request alone (:mod:`~dllm_plugins.routing.rules`). Modes that give
the same text are chosen among by measured speed (:mod:`~dllm_plugins.routing.bandit`), so that neither load nor luck
can change an answer.
"""

#: The mode of a request that leaves the choice to the router.
AUTO = "auto"
