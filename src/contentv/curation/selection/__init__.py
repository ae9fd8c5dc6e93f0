"""Policies: which clips are kept, and what explains it."""
