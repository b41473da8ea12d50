"""Model files from strangers: what they hold is known before anything in them may run."""
