"""``python -m sstplb``."""

from sstplb.cli import main

main()
