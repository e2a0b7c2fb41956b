"""Who starts and watches the processes of a run. The launcher, the supervisor and its crews are to move in here."""
