"""The networks as lists of operations, free of any framework: what they are made of, and what is done to them."""
