"""Running cells: the queue, job folders, progress, and what counts as done."""
