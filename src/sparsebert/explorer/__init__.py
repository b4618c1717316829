"""A page in the browser over Records: what models cost and are worth, and what was pruned. Starts without torch."""
