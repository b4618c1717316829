"""Models behind HTTP: waiting requests go together in batches, within limits of time and number."""
