"""Tables and figures from result files: `python -m analysis COMMAND FILES_OR_DIRS...`.

read             result files (HDF5), one `Run` each
races            which runs may share a table or an axis, and what each row is called
time_to_target   when a run first met a target, and what a run counts for that never did
statistics       the estimators, thin over scipy.stats
claims           what so many runs can and cannot support, in sentences
tables, typeset  the table of times to target: its numbers, and what is shown of them
pairs            two methods seed by seed
predicted        seconds per update and times to targets beside those that theory predicts
curves, plots    a metric against time: the median over seeds, and the figure
profiles         on which fraction of problems a method is within a factor of the best
timeline, steps  what each rank did when, and how long single steps took
links, ledger    what went over each edge, and what messages were worth in bytes
charts           the figures of these
agreement        the simulation beside real ranks
report           all of it on one page
staleness, histograms  how stale gradients were: the numbers, and the figure
sheets           what is shown of a race, as Markdown, LaTeX, HTML and CSV
grade, rules, evidence  how far results can be trusted: 60 items, their rules, and what files say for it
drift            what has changed between two sets of results
notes, rounding  what is said beside all of them, and numbers as readers see them

Everything is regenerated from result files alone; nothing of mpibench, MPI or torch is needed to read them.
"""
