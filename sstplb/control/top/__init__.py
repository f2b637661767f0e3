"""``sstplb top``: a running balancer on a terminal, live."""
