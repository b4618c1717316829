"""Questions over many records."""
