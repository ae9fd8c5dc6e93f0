"""Whole runs as Python: which stages, in which order, with which settings."""
