"""Segments audio into chunks, and assembles recognized words into a transcript."""
