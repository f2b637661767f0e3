"""Who should answer: backends, health, strategies, affinity, admission.

Pure: time is an argument, nothing waits, nothing is sent. The room decides; ``net`` acts.
"""
