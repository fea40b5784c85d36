"""The phases of a run: a module for each."""
