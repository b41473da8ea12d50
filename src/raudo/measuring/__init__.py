"""Runs engines to learn about them, each in a process of its own: what they find, and how fast."""
