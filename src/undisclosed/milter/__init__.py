"""The milter: pymilter's callbacks, sessions, the listener, the supervisor and its workers, the recorder.

Nothing slow to import comes in: no command line, no SQLAlchemy before the fork. May import journal, incidents,
decision, policy and service.
"""
