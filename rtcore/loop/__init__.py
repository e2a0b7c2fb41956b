"""The env process: what belongs to one tick. The tick loop and the world that it drives are to move in here."""
