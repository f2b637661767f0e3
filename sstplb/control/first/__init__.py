"""``sstplb init``: a first configuration, and what to do at the RRAS servers for it."""
