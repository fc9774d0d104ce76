"""Files on disk that survive kill -9."""
