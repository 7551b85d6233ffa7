"""The processes that `paraserve serve` starts on this machine: their limits, watch and end."""
