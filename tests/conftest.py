"""One thread per test process: the tests' models are too small to share, and the results stay the same everywhere."""

import torch

torch.set_num_threads(1)
