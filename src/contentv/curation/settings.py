"""Settings of the curation steps: everything that a score depends on. Imports nothing heavy."""
