"""Photo files: read and written with their colours and metadata."""
