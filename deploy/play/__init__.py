"""The demonstration of `deploy/quickstart`: two breaches replayed under each action, a held message, the output."""
