"""The main job in its parts: calibrate, price, search, assemble."""
