-- mpibench as an environment module (Lmod). Set `root` to the virtual environment that has it.
help([[Which distributed SGD method reaches my target first on my machine, and can I trust the number?]])
whatis("Name: mpibench")
local root = os.getenv("MPIBENCH_ROOT") or "/opt/mpibench"
depends_on("openmpi")
prepend_path("PATH", pathJoin(root, "bin"))
setenv("OMP_NUM_THREADS", "1")
setenv("HDF5_USE_FILE_LOCKING", "FALSE")
