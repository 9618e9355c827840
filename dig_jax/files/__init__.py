"""Paths, locks and npz files, local or in a bucket."""
