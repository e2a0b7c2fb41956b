"""Process entries of rtcore: environment, inference, policies."""
