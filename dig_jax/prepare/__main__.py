"""`python -m dig_jax.prepare`."""

import sys

from dig_jax.prepare.command import main

sys.exit(main())
