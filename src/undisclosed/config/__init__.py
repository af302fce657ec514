"""Reads the configuration file, and the lists and the key that it names: TOML in, Policy out.

An error names the file, the line, the key, the value and the remedy. No other room reads these files. May import
policy.
"""
