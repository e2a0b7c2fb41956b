"""As a library without another that it needs."""

raise ImportError("libgl.so.1: no such file")
