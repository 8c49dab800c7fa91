"""One cell in one process, from set-up to its written record. The only place that uses torch to run anything."""
