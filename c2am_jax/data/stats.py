"""Starts `c2am_jax.browse.stats`: python -m c2am_jax.data.stats stands beside python -m c2am_jax.data.prepare.

Nothing imports this module, so that what it starts may draw and read configs.
"""

import sys

from c2am_jax.browse.stats import main

if __name__ == "__main__":
    sys.exit(main())
