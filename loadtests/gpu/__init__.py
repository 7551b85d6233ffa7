"""Paraserve's engines on one GPU against FunASR's AutoModel."""
