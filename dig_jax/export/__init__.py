"""Trained runs for programs that do not know dig_jax."""

from dig_jax.export.export import PLATFORMS, export_run

__all__ = ["PLATFORMS", "export_run"]
