"""Trackers: where a run is logged to beside its records. One file each, named as ``run.trackers`` names it."""
