"""The teacher of the layered generator: sky, depth, tone and clouds of photos that nobody has labelled."""
