"""The journal: incidents, events, requests and notices, in SQLite or PostgreSQL.

The only room that speaks SQL. May import incidents, decision, policy and addresses.
"""

from undisclosed.journal.journal import Journal

__all__ = ["Journal"]
