"""`undisclosed explain`: saved messages read as Postfix would hand them over, and the decision on them explained.

No clock and no journal: the same message and policy always have the same explanation. May import decision, policy and
addresses.
"""
