"""Reports: everything here is made from saved records, so that it can be made again, byte for byte.

    toolkit.report.text.summary(results, table_format)     what a terminal, a README or a program is shown
    toolkit.report.page.write_page([results, ...], path)      one page of HTML that needs nothing beside it
    toolkit.report.plots.write_pictures([results, ...], folder)   the page's pictures as PNG and SVG
    toolkit.report.iperf3.read(path)                          a run of iperf3 -J, to be laid beside

`simulation` does the same for simulated experiments. Pictures need matplotlib (the extra `report`), which only
`drawing` imports, and only when it draws.
"""
