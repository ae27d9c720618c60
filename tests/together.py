"""Processes that work together, forked: to start them by torchrun takes five CPU seconds each, of imports.

One test of each kind starts torchrun itself. For what needs no gradients, since autograd does not go on in a
forked process where there is a GPU.
"""
import tempfile
from pathlib import Path
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

def joined(rank, processes, meeting, work, arguments):
    "One of the processes."
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{meeting}', rank=rank, world_size=processes)
    work(*arguments)
    dist.destroy_process_group()

def together(processes, work, *arguments):
    "Do work in so many processes; an error of one ends all."
    with tempfile.TemporaryDirectory() as folder:
        asked = processes, Path(folder)/'meeting', work, arguments
        start_processes(joined, asked, processes, start_method='fork')
