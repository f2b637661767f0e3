"""How bytes move: listeners, legs, dialling, the relay, probes.

Start at ``session.py``: it is the story of one call, from accept to account.
"""
