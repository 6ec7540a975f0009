"""What is trained: the networks, their config and their checkpoints."""
