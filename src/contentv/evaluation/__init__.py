"""How good a model is, counted, with intervals."""
