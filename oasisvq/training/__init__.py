"""From a prepared dataset to a model file."""
