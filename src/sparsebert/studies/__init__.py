"""Questions over many records, and over checkpoints."""
