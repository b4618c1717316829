"""What the tensors of a film of masks are called, which lies beside a record: see sparse/film.py."""

STEPS, PRUNED, WENT, RETURNED = "steps", "pruned", "went", "returned"
PICTURE = "picture/"
"""Before the name of a matrix."""
