"""Heads: the last layer alone, fitted to the features that a backbone gives."""
