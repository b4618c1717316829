"""What the live page asks models: answers, agreement on a file, parts switched off, a race. Its export has none."""
