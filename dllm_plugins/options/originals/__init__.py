"""What the arguments of the original implementations are called here."""
