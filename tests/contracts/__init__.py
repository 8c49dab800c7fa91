"""One suite per kind of plugin: every plugin of the kind runs the same list."""
