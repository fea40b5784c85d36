"""The processes of the service: those that serve, the worker beside them, and how each ends."""
