"""One thread a test process: the suite runs in two of them, and results do not depend on the machine's cores."""

import torch

torch.set_num_threads(1)
