"""What a machine grants and lacks for realtime work: one small module per group of checks. See docs/doctor.md."""
