"""Code shared by the long-running processes: messages to the service manager, the result of a reload, pauses.

Standard library only: the milter, the steward and the notices import it. May import nothing of this project.
"""
