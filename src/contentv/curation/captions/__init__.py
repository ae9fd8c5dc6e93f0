"""Captions of exported clips."""
