"""Watches a GPU with nvidia-smi while something runs on it."""
import shutil
import subprocess
import threading

QUERY = "utilization.gpu,memory.used"
INTERVAL_MS = 100


class Watch:
    """Notes the GPU's busy share and memory until it is left. Without nvidia-smi it notes nothing."""

    def __init__(self):
        self.busy, self.memory_mib = [], []
        self.child = None

    def __enter__(self):
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", "--id=0", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits",
                       f"--loop-ms={INTERVAL_MS}"]
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.reader = threading.Thread(target=self.read, daemon=True)
            self.reader.start()
        return self

    def __exit__(self, *_):
        if self.child:
            self.child.terminate()
            self.child.wait()
            self.reader.join()

    def read(self):
        for line in self.child.stdout:
            try:
                busy, memory = (float(field) for field in line.split(","))
            except ValueError:
                continue
            self.busy.append(busy / 100)
            self.memory_mib.append(memory)

    def busy_share(self):
        """The mean in the second half of the time, when the work is under way; None if unknown."""
        half = self.busy[len(self.busy) // 2:]
        return sum(half) / len(half) if half else None

    def most_memory_mib(self):
        return max(self.memory_mib, default=None)


def describe():
    """The GPU and its driver, in words."""
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi"
    fields = "name,driver_version,memory.total"
    ran = subprocess.run(["nvidia-smi", "--id=0", f"--query-gpu={fields}", "--format=csv,noheader"],
                         capture_output=True, text=True)
    return ran.stdout.strip() or ran.stderr.strip() or "nvidia-smi says nothing"
