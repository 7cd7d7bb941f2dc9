"""llama.cpp at work: its library, models, streams of keys, and the denoisers on them."""
