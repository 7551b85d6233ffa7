"""Live transcription: one session per speaker's stream, whatever the protocol."""
