"""Runs on disk: checkpoints, their records and fingerprints, averages, exports."""
