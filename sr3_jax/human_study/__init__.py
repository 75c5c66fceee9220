"""Runs the paper's forced choice: do people take a restored picture for the original?

`design` says who sees what and analyses answers, `site_builder` writes the site (the
pages are in site/), `server` serves it, `results` reads what comes back, `report` makes
the printed tables. Start with `command`, which is `sr3-study`.
"""
