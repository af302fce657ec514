"""The steward: one loop per host that sees to held mail.

`survey` and `judge` are values in, values out: what the hold queue says of the journal's copies, and what stands
against a request. `releases` hands held mail over, `loop` does it all in turn, `process` gives the rights up.
"""
