"""Executors: how a cell gets its process. One file each, named as ``--executor`` names it."""
