"""Weights in the naming of other projects: read, checked, converted, both ways."""
