"""What a model costs on this machine: time, memory, and what would help."""
