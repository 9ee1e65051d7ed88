"""The commands of Slurm that the engine calls, over processes of this machine: what they print, not how they schedule.

The file is the program of all commands, under their names; jobs are files in the folder `FAKE_SLURM`.
"""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


def sbatch(script: str) -> None:
    folder = Path(os.environ["FAKE_SLURM"])
    number = str(100 + len(list(folder.glob("*.sh"))))
    copy = folder / f"{number}.sh"
    copy.write_text(Path(script).read_text())
    array = re.search(r"--array=0-(\d+)", copy.read_text())
    for task in range(int(array[1]) + 1) if array else [None]:
        start(f"{number}_{task}" if array else number)
    sys.stdout.write(f"Submitted batch job {number}\n")


def start(job: str) -> None:
    """Execute a job, for the first time or again."""
    folder = Path(os.environ["FAKE_SLURM"])
    number, _, task = job.partition("_")
    env = {**os.environ, "SLURM_JOB_ID": number, "SLURM_PROCID": "0"}
    env |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task} if task else {}
    with Path(os.devnull).open("wb") as nowhere:
        command = ["bash", folder / f"{number}.sh"]
        process = subprocess.Popen(command, env=env, stdout=nowhere, stderr=nowhere, start_new_session=True)
    (folder / job).write_text(str(process.pid))


def srun(*words: str) -> None:
    command = words[words.index(sys.executable) :]
    os.execv(command[0], command)


def squeue(*options: str) -> None:
    folder = Path(os.environ["FAKE_SLURM"])
    asked = [option.partition("=")[2] for option in options if option.startswith("--jobs=")]
    if asked:
        is_cancelled = (folder / f"{asked[0]}.cancelled").exists()
        sys.stdout.write("CANCELLED\n" if is_cancelled else "NODE_FAIL\n")
        return
    jobs = [path for path in folder.iterdir() if not path.suffix]
    sys.stdout.writelines(f"{path.name}\n" for path in jobs if is_alive(int(path.read_text())))


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def scancel(*jobs: str) -> None:
    folder = Path(os.environ["FAKE_SLURM"])
    for job in jobs:
        (folder / f"{job}.cancelled").touch()
        with suppress(ProcessLookupError):
            os.killpg(int((folder / job).read_text()), signal.SIGKILL)


def scontrol(_requeue: str, job: str) -> None:
    start(job)


if __name__ == "__main__":
    COMMANDS = {command.__name__: command for command in (sbatch, srun, squeue, scancel, scontrol)}
    COMMANDS[Path(sys.argv[0]).name](*sys.argv[1:])
