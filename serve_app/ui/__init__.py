"""The web page: a client of the HTTP API, made with Gradio; no Ray, no models."""
