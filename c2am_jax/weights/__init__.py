"""Weights of other programs: reading them, their names and layouts, fitting them to a detector."""
