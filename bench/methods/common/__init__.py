"""What methods share: names of modules and parameters, the installed library, default targets, blocks."""
