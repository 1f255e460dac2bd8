"""Solvers: one textbook formula a file, each a function that returns a `fdiff.plan.Solver`."""

from fdiff.solvers.ddim import ddim

__all__ = ["ddim"]
