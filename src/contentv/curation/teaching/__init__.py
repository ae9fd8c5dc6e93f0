"""Heads that learn from a person which clips are good."""
