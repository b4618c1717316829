"""Fast feedforward layers: the layer, its routing, and converting a model."""
