"""Reports: text, tables, pictures and pages from the saved records of campaigns.

    text.report_text([summary, ...])                text for a terminal, a document or a program
    page.write_page([summary, ...], path)           one self-contained HTML page
    plots.write_pictures([summary, ...], folder)    the pictures of the page as PNG and SVG files
    iperf3.read(path)                               runs of iperf3, to show beside a campaign
    simulation                                      tables of simulated experiments

A summary comes from `toolkit.comparison.summary.summarise`. The same records give the same report, byte for byte.
Pictures need matplotlib (the extra `report`); only `drawing` and `figures` import it, when they draw.
"""
