"""Resprout: prune a trained image classifier and bring its accuracy back without its training data."""

__version__ = "0.1.0"
