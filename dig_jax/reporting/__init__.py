"""What a run tells: progress, metrics, plots, pictures, where its time went."""

REPORT = "report.html"
"""The page in the folder of a run, a comparison or an export (`dig_jax.report`)."""
