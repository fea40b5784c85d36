"""`python -m app tune`: the settings that are fastest on this machine."""
