"""Generators that other programs trained: read, and checked against their own arithmetic."""
