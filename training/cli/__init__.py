"""The commands of `resnext`, a module for each group, and how the terminal is used."""
