"""Patches that make libraries work together, a module per library.

Each patch names its versions and its reason. A patch that finds nothing to patch raises ``LibraryMismatchError``, so
that a changed library never runs unpatched.
"""
