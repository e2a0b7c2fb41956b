"""`rtcore-profile`: where the microseconds go, on this machine. One module per subcommand, its options in `commands`.

The module of a subcommand has

    def run(options: Namespace, console: Console) -> Result
                                                    measure, with progress while it lasts; print tables to `console`
    def plot(result: Result, folder: Path) -> list[Path]
                                                    PNG files into an existing folder; returns their paths. Called with
                                                    --plot only. `views.new_figure` works without a display

The program (`rtcore.cli.profile`) does the rest for all of them: it prints the host's conditions (load, steal time
during the run), writes the JSON, compares with a baseline, turns errors into exit codes (`ConfigError` 2, any other
`RtcoreError` 1, worse than the baseline 3). The JSON of a result is

    {"profile": <name>, "machine": {...}, "rows": [{...}, ...], **result.extra}

A row is a flat dictionary of numbers and text. The fields in `Result.keys` say which row of an old result belongs to
which row of a new one; the others are metrics, named with their units (`p99_us`). A missing number is None, never 0.
"""
