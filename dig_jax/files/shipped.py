"""Files that dig_jax brings along."""

from pathlib import Path


def shipped_configs() -> dict[str, Path]:
    """The configurations, by the names that `--config=` takes: configs/NAME.py."""
    package = Path(__file__).parents[1]
    # In the package where it was installed, beside it in a checkout.
    folders = (package / "configs", package.parent / "configs")
    shipped = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {f"configs/{path.name}": path for path in sorted(shipped.glob("*.py"))}
