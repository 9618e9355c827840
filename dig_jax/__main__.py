"""`python -m dig_jax`, which is `python -m dig_jax.main`."""

import sys

from dig_jax.main import command

if __name__ == "__main__":
    sys.exit(command())
