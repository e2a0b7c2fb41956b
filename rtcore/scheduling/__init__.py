"""Who starts when, and what acts when. Pure. `schedule`, `dispatch` and `planner` are to move in here."""
