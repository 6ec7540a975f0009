"""Training of the layered generator: the layout's head, then the fields."""
