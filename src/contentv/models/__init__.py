"""Networks: the video transformer, its autoencoder and its text towers."""
