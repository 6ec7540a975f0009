"""How good a generator is: metrics, methods to compare with, reports."""
