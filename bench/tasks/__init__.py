"""Tasks: one file each, named as a spec's ``task`` names it: inputs, loss, prediction, metrics and baselines."""

DEFAULT = "generative_vqa"
"""The task of a spec that names none."""
