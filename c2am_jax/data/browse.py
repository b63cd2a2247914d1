"""Starts `c2am_jax.browse.command`: python -m c2am_jax.data.browse stands beside python -m c2am_jax.data.prepare.

Nothing imports this module, so that what it starts may draw and read configs.
"""

import sys

from c2am_jax.browse.command import main

if __name__ == "__main__":
    sys.exit(main())
