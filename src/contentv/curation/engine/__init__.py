"""Who visits videos, how results are kept, and the catalogue made of them."""
