"""What devices can compute with few bits."""
