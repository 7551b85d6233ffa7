"""The HTTP layer: OpenAI's transcription API over any `TranscriptionService`."""
