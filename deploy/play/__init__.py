"""The play of `deploy/quickstart`: the people, the two breaches, their trial, and how it is shown."""
