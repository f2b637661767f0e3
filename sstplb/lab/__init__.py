"""The class room: a simulated RRAS, an SSTP caller, lab certificates, the demonstration.

Nothing outside this room depends on it, apart from the command line.
"""
