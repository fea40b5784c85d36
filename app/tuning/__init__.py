"""`python -m app tune`: a search for the fastest settings on this machine."""
