"""Makes pages that show what a run did: one report, or several side by side.

`data` reads and checks report folders, `page` and `compare_page` make HTML of them,
`compare` computes differences; `charts` and `line_plots` draw with matplotlib. Start
with `command`, which is `sr3-report`.
"""
