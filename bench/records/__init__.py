"""Records: what a run of a cell gave, as it is stored."""
