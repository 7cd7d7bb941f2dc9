"""The one contract of every mode: a program that asks for passes and is sent answers."""
