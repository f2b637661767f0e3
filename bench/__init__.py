"""The bench: what a balancer costs, ours beside the others, in one run on one machine."""
