"""Whisper on the CPU, by whisper.cpp."""
