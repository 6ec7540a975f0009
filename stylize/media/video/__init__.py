"""Video files: probed, decoded, encoded and joined by ffmpeg."""
