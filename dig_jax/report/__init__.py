"""report.html: one page, of one file, for a run, a comparison or an export."""

from dig_jax.report.write import write_report

__all__ = ["write_report"]
