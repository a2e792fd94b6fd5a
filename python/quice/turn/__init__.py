"""TURN: relayed addresses (RFC 8656), without sockets or clock.

Methods and attributes of TURN are in `quice.stun`, beside those of STUN that they share a registry with.
"""
