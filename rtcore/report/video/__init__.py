"""A recording as a video: what was seen, and beside it what was applied, by whom, how old and with which outcome.

picture   an observation as pixels: an image, or bars where it is none
action    an action as a lit pad, as cells or as bars
panel     everything else that is said of a tick
film      a recording tick by tick into an mp4, a picture per tick of real time
encoder   pixels into H.264
"""
