"""From a user's model to the exported program that is planned: export, rewrites, shared state."""
