"""Chances of typical drafts of the default model, four behind one another, on prompts that nothing was trained on."""

#: Means of twelve equal parts of all places, from the hardest to the easiest.
CHAINS = (
    (0.12, 0.33, 0.37, 0.37),
    (0.25, 0.25, 0.41, 0.39),
    (0.32, 0.38, 0.42, 0.40),
    (0.39, 0.34, 0.42, 0.40),
    (0.46, 0.37, 0.46, 0.42),
    (0.49, 0.56, 0.52, 0.47),
    (0.58, 0.55, 0.49, 0.46),
    (0.69, 0.51, 0.46, 0.47),
    (0.83, 0.46, 0.55, 0.49),
    (0.90, 0.57, 0.57, 0.51),
    (0.92, 0.74, 0.61, 0.56),
    (0.94, 0.96, 0.65, 0.61),
)
