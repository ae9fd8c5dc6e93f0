"""Where state lives: checkpoints today, meshes later."""
