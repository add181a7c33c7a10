"""Tables and figures from result files: `python -m analysis table|curves FILES_OR_DIRS...`.

read             result files (HDF5), one `Run` each
races            which runs may share a table or an axis, and what each row is called
time_to_target   when a run first met a target, and what a run counts for that never did
statistics       the estimators, thin over scipy.stats
tables, typeset  the table of times to target: its numbers, and as Markdown, LaTeX and CSV
curves, plots    a metric against time: the median over seeds, and the figure
notes, rounding  what is said beside both, and numbers as readers see them

Everything is regenerated from result files alone; nothing of mpibench, MPI or torch is needed to read them.
"""
