"""Pages that show what a run did: one report, and several side by side.

`data` reads what evaluations wrote, `page` and `compare_page` make HTML of it. Start
with `command`, which is `sr3-report`.
"""
