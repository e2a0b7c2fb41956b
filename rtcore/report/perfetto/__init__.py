"""A traced run as a Perfetto trace: `events` joins what the processes wrote, `looks` names it, `writer` writes it."""
