"""Freeze, train or adapt each part of a model, and see what every choice costs and wins."""

__version__ = "0.1.0"
