"""What the explorer's live page asks models: answers side by side, agreement on a file, a race. Its export has none."""
