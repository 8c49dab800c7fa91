"""What two libraries need to fit together, one module per library.

Each patch names the versions it is for and the reason. A patch or hook that finds nothing to patch raises
``LibraryMismatchError``: a changed library must never pass without its patch.
"""
