"""A version on its way to being live, and back."""
