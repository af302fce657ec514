"""Core: an incident as values: what the journal holds, and what is recorded of one transaction.

Free of SQLAlchemy: the milter builds these values while a message passes. May import decision, policy and addresses.
"""
