"""How likely a model calls a given text: exactly where it writes from left to right, by a bound where it denoises."""
