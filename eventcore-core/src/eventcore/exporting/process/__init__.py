"""An exporter in a process of its own: its hooks are called here, and run there.

``ProcessHandle`` stands where the handle of an exporter stands, so that the pipeline, its retries and
its account know nothing of the process. ``child`` is what the process runs.
"""

from eventcore.exporting.process.handle import ProcessHandle
from eventcore.exporting.process.running import ChildPlan

__all__ = ["ChildPlan", "ProcessHandle"]
