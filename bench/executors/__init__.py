"""Executors, which start the processes of cells: a file each, named as in ``--executor``."""
