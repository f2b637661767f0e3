"""sstplb: a load balancer and TLS-offload / re-encryption proxy for SSTP.

The rooms, from the ground up (imports go down only; ``tests/test_architecture.py`` holds it):

====================  =====================================================================
``errors``            every exception, the tree in the first docstring
``config``            what can be set
``protocol``          what goes over the wire (pure)
``tls``               how it is kept secret
``balance``           who should answer (pure)
``account``           what we remember (pure)
``net``               how bytes move; ``net/session.py`` is the story of one call
``control``           how it is operated
``lab``               the class room: simulated RRAS, SSTP caller, lab PKI, demo
``cli``               the command
====================  =====================================================================
"""

__version__ = "0.1.0"
