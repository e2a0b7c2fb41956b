"""`python -m rtcore.report.perfetto DIR`."""

from rtcore.report.perfetto.writer import main

if __name__ == "__main__":
    main()
