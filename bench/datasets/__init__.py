"""Data sets, one file each, named as in a spec's ``data.name``."""
