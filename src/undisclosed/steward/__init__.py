"""The steward: one loop a host that reads the hold queue, carries out requests, expires, and has notices sent.

`privileged.py` runs as root and imports the standard library only; this file imports nothing, so that it stays so. May
import notices, journal, incidents, decision, policy, addresses and service.
"""
