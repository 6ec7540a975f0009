"""A video from file to file on one machine: its frames through the network, in segments that are kept."""
