"""Clips as files, for training here and elsewhere."""
