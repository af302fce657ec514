"""Core: the records of the journal as values, and the record of one transaction.

Free of SQLAlchemy: the milter builds these values while a message passes. May import decision, policy and addresses.
"""
