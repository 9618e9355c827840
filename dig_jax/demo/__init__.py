"""A page to play with a trained model, served to this machine's browser."""
