"""What goes over the wire: bytes in, values out.

Everything here is pure: no sockets, no clock, no randomness, no log. Time is an argument
(``now``, seconds on any monotonic clock), random bytes are arguments, and a machine that wants
to be woken says when. That makes every parser and every state machine testable byte by byte.
"""
