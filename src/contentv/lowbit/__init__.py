"""Numbers of few bits: which kinds there are, what computes with them, and how they are kept."""
