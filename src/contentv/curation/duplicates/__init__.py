"""Which clips show again what another one shows."""
