"""Data sets: one file each, named as a spec's ``data.name`` names it."""
