"""The journal: incidents, events, requests and notices, in SQLite or PostgreSQL.

The only room that uses SQL; journal.py is its interface. This file imports nothing, so that the milter loads SQLAlchemy
before it forks and not while a message waits. May import incidents, decision, policy and addresses.
"""
