"""What a run tells: progress, metrics, plots, pictures, where its time went."""
