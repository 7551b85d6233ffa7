"""The Ray Serve deployments: plain classes, and builders that know Serve's options."""
