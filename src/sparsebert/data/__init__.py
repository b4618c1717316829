"""From files and the hub to checked rows, and from these to tokens."""
