"""Small transformers on reasoning tasks: one data set and one body, trained left to right and by diffusion."""
