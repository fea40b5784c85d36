"""Processes: the server, its siblings, the worker beside it, their end."""
