"""The sections of a report, one per file.

A module that defines `section(stack)` adds to the report on one stack; one that defines
`comparison(stacks, base)` adds to the report on several. Both return a list of sections, empty
where nothing was measured. `ORDER` is the module's place in the report.
A module of comparisons with `ACROSS` is asked once for all stacks; others once for the
stacks of each table, which were scored on the same text.
"""
