"""Live transcription under load."""
