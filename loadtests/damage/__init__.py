"""Recordings that were damaged at random, decoded beside FFmpeg's own lenient decoding."""
