"""The admin side: doors (a unix socket, a TCP address), the API behind them, and its page."""
