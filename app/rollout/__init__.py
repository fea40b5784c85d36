"""The way of a version to being live, and the way back from a bad one."""
