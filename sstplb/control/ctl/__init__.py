"""Operating a running balancer from a terminal: ``sstplb ctl`` and ``sstplb top``, over its API."""
