"""What a client may ask: a module for each resource, and what they share."""
