"""The proven engine as a service: a core that knows no transport, and what carries it."""
