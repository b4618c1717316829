"""Types of run, and what they share: context, stages, cache, claims, results, sweeps."""
