"""A laboratory on loopback: a private Postfix, a sink in place of the outside world, a client and the milter.

The tests and `deploy/quickstart` share it. It does not touch the host's own mail system, and sends no packet to any
address but 127.0.0.1.
"""
