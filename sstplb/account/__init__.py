"""What we remember: a record of each call, the ledger of all, and how they are shown. Pure."""
