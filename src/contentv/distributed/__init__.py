"""Many processes as one: meshes, sharding, exchanges of tokens, checkpoints."""
