"""A milter for Postfix that keeps recipients' addresses out of each other's sight."""
