"""Python's garbage collector, told what this program is like.

Reference counts free nearly everything at once. What is left for the collector are cycles, and
they are few; but it looks for them after every 700 new objects, which a few calls make, and now
and then among everything that was imported. That costs 3 % of a call's set-up, and a pause of some
milliseconds for all others.
"""

import gc

YOUNG_MAX = 20_000
"""New objects before the collector looks at them."""


def settle() -> None:
    """Note that what is there now stays, and look for cycles less often. Once, after the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 20)
