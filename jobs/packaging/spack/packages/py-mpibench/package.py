# mpibench for Spack; the MPI library is the one that py-mpi4py is built with.
from spack.package import *


class PyMpibench(PythonPackage):
    """A benchmark suite for asynchronous, decentralized and communication-efficient distributed SGD."""

    version("main", branch="main")

    license("BSD-3-Clause")
    variant("torch", default=False, description="Problems that need PyTorch")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-setuptools@77:", type="build")
    depends_on("py-mpi4py@4.1:", type=("build", "run"))
    for requirement in ("annotated-types", "click", "h5py~mpi", "jinja2", "markupsafe", "matplotlib", "networkx"):
        depends_on(f"py-{requirement}", type=("build", "run"))
    for requirement in ("numpy@2:", "pandas", "plotly@6:", "pydantic@2.9:", "rich", "scikit-learn", "scipy@1.15:"):
        depends_on(f"py-{requirement}", type=("build", "run"))
    depends_on("py-threadpoolctl", type=("build", "run"))
    depends_on("py-torch", when="+torch", type=("build", "run"))
