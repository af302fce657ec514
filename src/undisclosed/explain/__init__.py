"""`undisclosed explain`: saved messages read as Postfix would hand them over, and the decision on them explained.

May import decision, policy and addresses.
"""
