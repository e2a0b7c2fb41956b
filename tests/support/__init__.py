"""What several tests use: worlds, policies and programs that other processes load by name, made-up runs, and drills."""
