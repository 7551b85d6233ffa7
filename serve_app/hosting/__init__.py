"""What `paraserve serve` starts on this machine: how it is bounded, watched and ended."""
