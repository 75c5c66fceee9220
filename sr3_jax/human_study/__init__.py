"""The paper's forced choice: do people take a restored picture for the original?

`design` says who sees what, `site_builder` writes the site, `server` runs it,
`results` and `report` analyse answers. Start with `command`, which is `sr3-study`.
"""
