"""Models where they are used: exported folders, and one predictor for every form of a model."""
