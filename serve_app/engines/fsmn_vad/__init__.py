"""FSMN-VAD: which parts of a stream are speech."""
