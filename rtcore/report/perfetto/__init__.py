"""A traced run as a Perfetto trace: `events` joins what the processes wrote, `writer` draws and writes it."""
