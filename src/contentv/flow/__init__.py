"""The mathematics of flow matching on tensors."""
