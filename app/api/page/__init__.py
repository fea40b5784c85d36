"""The pages that people open: what is served, and the API to try out."""
