"""The commands of ``stylize``, one module each."""
