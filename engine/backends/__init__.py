"""What runs the two graphs of a model; `engine.backends.base` has the contract."""
