"""The HTTP side: OpenAI's transcription API over any `TranscriptionService`."""
