"""The report: one HTML file that needs nothing else, and beside it the table and the figures for a paper.

verdict   the question of a race, its answer, and what limits it
figures   interactive figures, as data for plotly
page      all of it on one page, from the template page.html.j2

`style.css` and `report.js` go into the page, and so does plotly's script, packed, from its Python package.
"""
