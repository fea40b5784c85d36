"""The HTTP API: a module for each resource, and what the modules share."""
