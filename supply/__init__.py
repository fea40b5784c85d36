"""Looks after what the service is made of: the locked packages and the files of others that lie in this repository."""
