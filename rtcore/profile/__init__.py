"""`rtcore-profile`: where the microseconds go, on this machine. One module per subcommand.

A subcommand is a module of this package that is named in `rtcore.cli.profile.SUBCOMMANDS` and has

    HELP: str                                       one line for the list of subcommands
    DESCRIPTION: str                                optional: what is measured and how, for its own --help
    EXAMPLES: str                                   optional: example calls with comments, for the end of its --help
    TAKES_RUN_FLAGS: bool                           optional: options that the parser does not know are kept as a
                                                    list in `options.run_flags` (for `path`: flags of rtcore-run)
    def add_arguments(parser: ArgumentParser) -> None
                                                    its own options; the common ones are added by the program:
                                                    --json, --plot, --baseline, --fail-if (do not name yours so)
    def run(options: Namespace, console: Console) -> Result
                                                    measure, with progress while it lasts; print tables to `console`
    def plot(result: Result, folder: Path) -> list[Path]
                                                    optional: PNG files into an existing folder; returns their paths.
                                                    Called with --plot only. `views.new_figure` works without a display

The program (`rtcore.cli.profile`) does the rest for all of them: it prints the host's conditions (load, steal time
during the run), writes the JSON, compares with a baseline, turns errors into exit codes (`ConfigError` 2, any other
`RtcoreError` 1, worse than the baseline 3). The modules are imported to show the help: heavy imports go into the
functions that need them. The JSON of a result is

    {"profile": <name>, "machine": {...}, "rows": [{...}, ...], **result.extra}

A row is a flat dictionary of numbers and text. The fields in `Result.keys` say which row of an old result belongs to
which row of a new one; the others are metrics, named with their units (`p99_us`). A missing number is None, never 0.
"""
