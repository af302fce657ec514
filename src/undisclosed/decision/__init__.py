"""Core: message + policy -> decision, header edits and the words of the SMTP reply.

Values in, values out: no clock, file, socket or log, and nothing is changed here. May import policy and addresses.
"""
