"""The loop that turns batches into weights."""
