"""One job on many machines: shares of a job array, and workers of a Ray cluster."""
