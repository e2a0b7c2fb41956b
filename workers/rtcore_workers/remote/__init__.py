"""Workers on other hosts: what travels (wire), in which order (session), over which sockets (sockets), and both ends.

Here, beside the world, a worker process has the policy of `near`, which asks the other host for each action. There
`rtcore-worker` has `serving`, which builds the policy and answers. Both know the same packets, and nothing is pickled.
"""
