"""Models: what families look like, how shrunk models are described, built, loaded and saved."""
