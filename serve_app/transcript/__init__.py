"""From audio to chunks, and from recognized words to a transcript."""
